//go:build unix

package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// emptyService returns a service whose clients wait for an endpoint for longer than a test takes.
func emptyService() string {
	return service("web", `empty_wait = "10m"`, `consul { drop_hold = "0s" }`)
}

// askers starts n clients, each of which asks once. askers returns a function that waits for them and returns their
// errors.
func askers(t *testing.T, addr netip.AddrPort, n int) (errs func() []error) {
	t.Helper()
	answers := make(chan error, n)
	for range n {
		go func() {
			_, err := ask(t.Context(), addr)
			answers <- err
		}()
	}
	return func() (all []error) {
		for range n {
			if err := <-answers; err != nil {
				all = append(all, err)
			}
		}
		return all
	}
}

// The only instance of a service is replaced. For a while there is no instance, and clients wait.
func TestSwitchoverOfTheOnlyInstanceCostsNoClient(t *testing.T) {
	t.Parallel()
	for name, goes := range map[string]func(c *consul) error{
		"deregistered": func(c *consul) error { return c.api.Agent().ServiceDeregister("a") },
		"maintenance": func(c *consul) error {
			return c.api.Agent().EnableServiceMaintenance("a", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startConsul(t, testconsul.Options{})
			c.register(t, "web", "a", startEcho(t, "a").addr)
			l := runLictor(t, consulBlock(c)+emptyService())
			web := l.addr(t, "web")
			const clients = 5
			load := startWorkers(t, web, clients)
			load.awaitRounds(t, 5)
			must(t, goes(c))
			l.awaitAnswer(t, "status", 0, "5 clients waiting for an endpoint until ")
			l.awaitAnswer(t, "explain web", 1, "5 clients waiting for an endpoint until ")
			l.awaitAnswer(t, "connections web", 0, "waiting")
			c.register(t, "web", "b", startEcho(t, "b").addr)
			load.awaitRounds(t, 5)
			load.stop()
			if n := len(load.errors); n > 0 {
				t.Fatalf("%d of %d clients failed, the first: %v", n, clients, <-load.errors)
			}
			awaitRotation(t, web, "b")
		})
	}
}

// Clients are reset at the end of the wait, even if there never was an instance.
func TestServiceWithoutInstancesResetsInTheEnd(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web", `empty_wait = "20s"`, `consul { drop_hold = "0s" }`)+
		service("never", `empty_wait = "10m"`))
	c.deregister(t, "a")
	l.awaitAnswer(t, "status web", 0, "0 clients waiting for an endpoint")
	first := askers(t, l.addr(t, "web"), 1)
	l.awaitAnswer(t, "status web", 0, "1 client waiting for an endpoint")
	wantResets(t, "at the end of the wait", first(), 1)
	wantResets(t, "after it", askers(t, l.addr(t, "web"), 3)(), 3)
	wantResets(t, "of a service that never had an instance", askers(t, l.addr(t, "never"), 3)(), 3)
}

// wantResets fails the test unless there are n errors, all resets.
func wantResets(t *testing.T, when string, errs []error, n int) {
	t.Helper()
	for _, err := range errs {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client %s got %v, want a reset", when, err)
		}
	}
	if len(errs) != n {
		t.Errorf("%d clients %s failed, want %d", len(errs), when, n)
	}
}

// A reload changes the wait of clients that wait already. When an operator drains the last instance, clients wait until
// it is undrained.
func TestReloadAndDrainWhileClientsWait(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	config := consulBlock(c) + emptyService()
	l := runLictor(t, config)
	web := l.addr(t, "web")
	l.post(t, "/v1/services/web/drain", `{"endpoint": "test/a", "force": true}`)
	first := askers(t, web, 3)
	l.awaitAnswer(t, "status", 0, "3 clients waiting for an endpoint")
	l.post(t, "/v1/services/web/undrain", `{"endpoint": "test/a"}`)
	wantResets(t, "after the drain", first(), 0)
	c.deregister(t, "a")
	l.awaitAnswer(t, "status", 0, "0 clients waiting for an endpoint")
	second := askers(t, web, 3)
	l.awaitAnswer(t, "status", 0, "3 clients waiting for an endpoint")
	l.mustReload(t, strings.Replace(config, `"10m"`, `"0s"`, 1))
	wantResets(t, "when the wait was turned off", second(), 3)
}

// During an upgrade clients wait. The old process serves its own waiting clients, and new clients wait in the new
// process.
func TestUpgradeWhileClientsWait(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	d := found(t, consulBlock(c)+emptyService())
	now := &lictor{runtime: d.runtime} // the process that answers now
	web := d.addr(t, "web")
	awaitRotation(t, web, "a")
	c.deregister(t, "a")
	now.awaitAnswer(t, "status", 0, "0 clients waiting for an endpoint")
	old := askers(t, web, 3)
	now.awaitAnswer(t, "status", 0, "3 clients waiting for an endpoint")
	d.upgrade(t)
	now.awaitAnswer(t, "status", 0, "0 clients waiting for an endpoint")
	young := askers(t, web, 3)
	now.awaitAnswer(t, "status", 0, "3 clients waiting for an endpoint")
	c.register(t, "web", "b", startEcho(t, "b").addr)
	for name, errs := range map[string]func() []error{"old": old, "new": young} {
		if all := errs(); len(all) > 0 {
			t.Errorf("clients of the %s process: %v", name, all)
		}
	}
}
