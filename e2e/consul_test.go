//go:build unix

package e2e

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// patience limits each wait of a test. Only a failing test reaches the limit. It is longer than the time after which an
// agent of Consul repairs what its catalog missed: at most two minutes, or 15 seconds after an error.
const patience = 150 * time.Second

// eventually waits until check returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	within(t, patience, what, check)
}

func within(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := testproc.Poll(ctx, check); err != nil {
		t.Fatalf("waited %v for this: %s: %v", limit, what, err)
	}
}

// shortTempDir returns a temporary folder whose path is short enough for a Unix socket in it.
func shortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A consul is an agent, and a client of it with all permissions.
type consul struct {
	*testconsul.Agent
	api *api.Client
}

// startConsul starts an agent that ends with the test. Without a consul the test is skipped, unless it runs in CI.
func startConsul(t testing.TB, options testconsul.Options) *consul {
	t.Helper()
	findConsul(t)
	options.Binary, options.Dir = consulBinary, shortTempDir(t)
	agent, err := testconsul.Start(t.Context(), options)
	must(t, err)
	t.Cleanup(func() {
		agent.Kill()
		if t.Failed() {
			t.Logf("consul said:\n%s", agent.Log.Tail(30))
		}
	})
	client, err := agent.Client()
	must(t, err)
	return &consul{agent, client}
}

// findConsul skips or fails the test if there is no consul.
func findConsul(t testing.TB) {
	t.Helper()
	if errNoConsul != nil {
		testproc.Cannot(t, "there is no Consul", errNoConsul)
	}
}

// register registers an instance of a service. Without a check, the instance is healthy while it is registered.
// register waits for the catalog, which the agent informs a moment after its answer.
func (c *consul) register(t testing.TB, service, id string, addr netip.AddrPort,
	change ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{ID: id, Name: service, Address: addr.Addr().String(), Port: int(addr.Port())}
	for _, f := range change {
		f(r)
	}
	must(t, c.api.Agent().ServiceRegister(r))
	eventually(t, "the catalog has "+id, func() error {
		all, _, err := c.api.Catalog().Service(service, "", nil)
		if err == nil && !slices.ContainsFunc(all, func(i *api.CatalogService) bool { return i.ServiceID == id }) {
			err = errors.New("not yet")
		}
		return err
	})
}

func tags(tags ...string) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) { r.Tags = tags }
}

func meta(key, value string) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) { r.Meta = map[string]string{key: value} }
}

func weight(weight int) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) {
		r.Weights = &api.AgentWeights{Passing: weight, Warning: 1}
	}
}

// checked gives the instance a check whose status the test sets with setHealth. The first status is passing.
func checked(r *api.AgentServiceRegistration) {
	r.Check = &api.AgentServiceCheck{CheckID: "check:" + r.ID, TTL: "1h", Status: api.HealthPassing}
}

// setHealth sets the status of an instance's check, and waits until the catalog has it.
func (c *consul) setHealth(t testing.TB, id, status string) {
	t.Helper()
	must(t, c.api.Agent().UpdateTTL("check:"+id, "as the test wants it", status))
	eventually(t, "the catalog knows that "+id+" is "+status, func() error {
		all, _, err := c.api.Health().State(status, nil)
		if err == nil && !slices.ContainsFunc(all, func(h *api.HealthCheck) bool { return h.CheckID == "check:"+id }) {
			err = errors.New("not yet")
		}
		return err
	})
}

func (c *consul) deregister(t testing.TB, id string) {
	t.Helper()
	must(t, c.api.Agent().ServiceDeregister(id))
}

// pause stops the agent's process. Its connections stay, and the kernel accepts new ones, as on a host that hangs.
func (c *consul) pause(t testing.TB)  { t.Helper(); must(t, testproc.Freeze(c.Pid())) }
func (c *consul) resume(t testing.TB) { t.Helper(); must(t, c.Signal(syscall.SIGCONT)) }
