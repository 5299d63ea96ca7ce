package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// An agent is a real Consul in development mode, with a client that has all rights.
type agent struct {
	*testconsul.Agent
	t   *testing.T
	api *api.Client
}

// startAgent starts a Consul with the usual configuration plus hcl.
func startAgent(t *testing.T, hcl string) *agent {
	t.Helper()
	return startAgentWith(t, testconsul.Options{HCL: hcl})
}

func startAgentWith(t *testing.T, o testconsul.Options) *agent {
	t.Helper()
	o.Binary, o.Dir, o.Node = testconsul.Need(t), t.TempDir(), "n"
	a, err := testconsul.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	client, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	return &agent{a, t, client}
}

// register registers an instance, and waits until the catalog has it. The agent answers before it informs the catalog.
func (a *agent) register(s *api.AgentServiceRegistration) {
	a.t.Helper()
	if err := a.api.Agent().ServiceRegister(s); err != nil {
		a.t.Fatal(err)
	}
	testproc.Await(a.t, "instance in the catalog", func() bool {
		all, _, err := a.api.Catalog().Service(s.Name, "", nil)
		return err == nil && slices.ContainsFunc(all, func(i *api.CatalogService) bool { return i.ServiceID == s.ID })
	})
}

// TestMain fails if a goroutine of the tests is still running at the end.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// followNew calls follow for a source with the options o.
func followNew(t *testing.T, o ConsulOptions) *rig {
	t.Helper()
	log := &journal{}
	o.Logger = log.logger(hclog.Info)
	c, err := NewConsul(o)
	if err != nil {
		t.Fatal(err)
	}
	return follow(t, c, log)
}

// follow runs c, which logs to log, until the test ends.
func follow(t *testing.T, c *Consul, log *journal) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &rig{recorder: &recorder{}, consul: c, log: log, cancel: cancel, done: make(chan error, 1)}
	go r.run(ctx)
	t.Cleanup(r.stop)
	return r
}

func (r *rig) wantLast(t *testing.T, want string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("published %q\n%s", r.got(), r.log)
		}
	}()
	testproc.Await(t, fmt.Sprintf("%q", want), func() bool {
		got := r.got()
		return len(got) > 0 && got[len(got)-1] == want
	})
}

func TestRealConsulFollowed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	r := followNew(t, ConsulOptions{Address: a.HTTP,
		Watches: []Watch{{Service: "web", Guard: Guard{Hold: -1},
			Query: Query{Tags: []string{"V2"}, Filter: "Service.Meta.x != y"}}}})
	r.wantLast(t, "web:")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80, Tags: []string{"v2"}})
	r.wantLast(t, "web: n/a=127.0.0.1:80")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "b", Address: "[::1]", Port: 81, Tags: []string{"v2"}})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "old", Port: 83})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "y", Port: 84, Tags: []string{"v2"},
		Meta: map[string]string{"x": "y"}})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "wrong", Address: "10.0.0.1:99",
		Port: 85, Tags: []string{"v2"}})
	r.wantLast(t, "web: n/a=127.0.0.1:80 n/b=[::1]:81")
	testproc.Await(t, "bad instance", func() bool { return r.status().Bad == 1 })
	r.log.wantOnce(t, "instance left out")
	if err := a.api.Agent().EnableServiceMaintenance("a", ""); err != nil {
		t.Fatal(err)
	}
	r.wantLast(t, "web: n/b=[::1]:81")
	if err := a.api.Agent().ServiceDeregister("b"); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "empty set, the bad instance left out", func() bool { return r.status().Endpoints == 0 })
}

func TestRealConsulRestartedEmptyHanded(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	for range 50 { // so that the index of the restarted agent is lower
		if _, err := a.api.KV().Put(&api.KVPair{Key: "x", Value: []byte(time.Now().String())}, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, Watches: []Watch{{Service: "web"}, {Service: "other"}}})
	testproc.Await(t, "first sets", func() bool { return len(r.got()) == 2 })
	a.Kill()
	testproc.Await(t, "log line", func() bool { return strings.Contains(r.log.String(), "consul is lost") })
	if got := r.status(); got.Endpoints != 1 || got.Error == "" {
		t.Errorf("status %+v", got)
	}
	// A development agent loses its state at a restart. Lictor believes its answers nevertheless.
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "b", Port: 81})
	r.wantLast(t, "web: n/b=127.0.0.1:81")
	testproc.Await(t, "end of trouble", func() bool { return strings.Contains(r.log.String(), "consul answers again") })
	r.log.wantOnce(t, "consul is lost", "consul answers again")
}

func TestRealConsulOverUnixSocketWithManyWatches(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "lictor") // the path of t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "c.sock")
	a := startAgent(t, fmt.Sprintf(`addresses { http = "127.0.0.1 unix://%s" }`, socket))
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	o := ConsulOptions{Address: "unix://" + socket, Wait: 3 * time.Second}
	for i := range 100 {
		o.Watches = append(o.Watches, Watch{Service: fmt.Sprint("s", i),
			Query: Query{Service: "web", Tags: make([]string, 0), Filter: fmt.Sprintf("Service.Port != %d", i)}})
	}
	r := followNew(t, o)
	testproc.Await(t, "all sets", func() bool { return len(r.got()) == 100 })
	testproc.Await(t, "end of the first wait", func() bool { return r.consul.Snapshot()[99].Queries > 2 })
	for _, s := range r.consul.Snapshot() {
		if s.Errors != 0 || s.Updates != 1 || s.Doubted != 0 {
			t.Errorf("status %+v", s)
		}
	}
}

func TestRealConsulRefusesQueries(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	c, err := NewConsul(ConsulOptions{Address: a.HTTP})
	if err != nil {
		t.Fatal(err)
	}
	defer c.client.CloseIdle()
	tests := []struct{ filter, want string }{
		{"", ""},
		{"Service.Meta.version == `2`", ""},
		{"Service.Nope == 1", `consul refuses the query: filter: Selector "Service.Nope" is not valid`},
		{"(((", "filter: 1:4 (3): no match found"},
		{"Service.Port == abc", "coerce"},
		{"Service.ID matches `(`", "regular expression"},
	}
	for _, tt := range tests {
		err := c.Check(t.Context(), Query{Service: "web", Filter: tt.filter})
		var refusal *RefusedError
		if tt.want == "" && err == nil {
			continue
		}
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.filter, err, tt.want)
		}
	}
	var refusal *RefusedError
	if err := c.Check(t.Context(), Query{Service: "web", Datacenter: "nope"}); err == nil || errors.As(err, &refusal) {
		t.Errorf("unknown datacentre: %v", err)
	}
	enterprise, err := NewConsul(ConsulOptions{Address: a.HTTP, Namespace: "team"})
	if err != nil {
		t.Fatal(err)
	}
	defer enterprise.client.CloseIdle()
	if err := enterprise.Check(t.Context(), Query{Service: "web"}); !errors.As(err, &refusal) ||
		!strings.Contains(err.Error(), "Enterprise") {
		t.Errorf("namespace: %v", err)
	}
	a.Kill()
	if err := c.Check(t.Context(), Query{Service: "web"}); err == nil || errors.As(err, &refusal) ||
		strings.Contains(err.Error(), "passing=1") {
		t.Errorf("no consul: %v", err)
	}
}

func TestRealConsulTokenThatLosesItsRight(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{ACL: true})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	const rules = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, _, err := a.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := a.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "00000000-0000-4000-8000-000000000000")
	r := followNew(t, ConsulOptions{Address: a.HTTP, TokenFile: file, Wait: 2 * time.Second,
		Watches: []Watch{{Service: "web"}}})
	denied := func(n int) func() bool {
		return func() bool { return strings.Count(r.log.String(), "consul denies access") == n }
	}
	testproc.Await(t, "denial of the unknown token", denied(1))
	write(t, file, token.SecretID)
	r.wantLast(t, "web: n/a=127.0.0.1:80")

	policy.Rules = `service_prefix "" { policy = "read" }`
	if policy, _, err = a.api.ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "denial of the reduced token", denied(2))
	r.log.wantOnce(t, "it lacks node:read")
	policy.Rules = `node_prefix "" { policy = "read" }`
	if policy, _, err = a.api.ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := r.consul.client.MissingRight(t.Context(), "web", ""), `service:read for "web"`; got != want {
		t.Errorf("missing %q, want %q", got, want)
	}
	policy.Rules = rules
	if _, _, err = a.api.ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "end of trouble", func() bool {
		return strings.Count(r.log.String(),
			"consul permits access again") == 2
	})

	if _, err := a.api.ACL().TokenDelete(token.AccessorID, nil); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "denial of the deleted token", denied(3))
	r.want(t, "web: n/a=127.0.0.1:80")
	if strings.Contains(r.log.String(), token.SecretID) {
		t.Error("token in the log")
	}
	t.Logf("%s%+v", r.log, r.status())
}

// A restarted agent reports its instances as critical until their first checks. The instances stay in use as long as
// they can be reached, and no longer.
func TestRealConsulAgentStartsAgain(t *testing.T) {
	t.Parallel()
	server := startAgentWith(t, testconsul.Options{Servers: 1})
	instance, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer instance.Close()
	hcl := func(interval string) string {
		return fmt.Sprintf("service {\n name = \"web\"\n port = %d\n check {\n tcp = %q\n interval = %q\n}\n}\n",
			instance.Addr().(*net.TCPAddr).Port, instance.Addr(), interval)
	}
	dir := t.TempDir()
	host, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: dir,
		Node: "host", Client: true, Join: server.LAN, HCL: hcl("1s")})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Kill()
	guard := Guard{Hold: -1, HoldMax: HoldMax{Critical: time.Hour}}
	prober := lb.NewProber(lb.NewRoundRobin())
	defer prober.Close()
	r := followNew(t, ConsulOptions{Address: server.HTTP, Watches: []Watch{{Service: "web", Guard: guard}},
		Prober: prober})
	web := fmt.Sprintf("web: host/web=%s", instance.Addr())
	r.wantLast(t, web)

	write(t, filepath.Join(dir, "agent.hcl"), hcl("1h"))
	if err := host.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-host.Done()
	if err := host.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "hold", func() bool { return r.status().Held == 1 })
	r.wantLast(t, web)
	x, _ := r.consul.Explain("web")
	if one := x.Tiers[0].Instances[0]; one.HeldFor == HoldDeregistered {
		t.Errorf("held as %v: %s", one.HeldFor, one.Detail)
	}
	instance.Close()
	r.wantLast(t, "web:")
}

// The leader's record of a node shows whether an instance was deregistered, was forgotten with its node, or lost its
// tag.
func TestRealConsulTellsWhyInstancesVanish(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	host := &api.CatalogRegistration{Node: "host", Address: "10.0.0.1",
		Service: &api.AgentService{Service: "web", ID: "w", Port: 80, Tags: []string{"primary"}}}
	other := &api.CatalogRegistration{Node: "host", Address: "10.0.0.1",
		Service: &api.AgentService{Service: "other", Port: 90}}
	register := func(all ...*api.CatalogRegistration) {
		for _, one := range all {
			if _, err := a.api.Catalog().Register(one, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	register(host, other)
	r := followNew(t, ConsulOptions{Address: a.HTTP, Prober: &fakeProber{}, Watches: []Watch{
		{Service: "web"}, {Service: "tag", Query: Query{Service: "web", Tags: []string{"primary"}}},
	}})
	heldFor := func(service string) string {
		x, _ := r.consul.Explain(service)
		for _, one := range x.Tiers[0].Instances {
			return one.HeldFor.String()
		}
		return "gone"
	}
	reasons := func(want string) func() bool {
		return func() bool { return heldFor("web")+", "+heldFor("tag") == want }
	}
	testproc.Await(t, "first sets", reasons("not held, not held"))

	host.Service.Tags = nil
	register(host)
	testproc.Await(t, "the set without the tag", reasons("not held, gone"))
	host.Service.Tags = []string{"primary"}
	register(host)
	testproc.Await(t, "sets with the tag", reasons("not held, not held"))
	deregister := func(d *api.CatalogDeregistration) {
		if _, err := a.api.Catalog().Deregister(d, nil); err != nil {
			t.Fatal(err)
		}
	}
	deregister(&api.CatalogDeregistration{Node: host.Node, ServiceID: "w"})
	testproc.Await(t, "holds of what was deregistered", reasons("deregistered, deregistered"))
	register(host)
	testproc.Await(t, "sets", reasons("not held, not held"))
	deregister(&api.CatalogDeregistration{Node: host.Node})
	testproc.Await(t, "holds of what was forgotten", reasons("forgotten, forgotten"))
}

// A Consul that denies by default silently returns no instances to a client without a token. Lictor logs that once.
func TestRealConsulWithoutAToken(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{ACL: true})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	r := followNew(t, ConsulOptions{Address: a.HTTP, Watches: []Watch{{Service: "web"}, {Service: "api"}}})
	testproc.Await(t, "both sets", func() bool { return len(r.got()) == 2 })
	testproc.Await(t, "warning", func() bool { return strings.Contains(r.log.String(), "lictor has no token") })
	r.log.wantOnce(t, "lictor has no token")
	if _, err := r.consul.Look(t.Context(), Query{Service: "web"}); !errors.Is(err, ErrNoToken) {
		t.Errorf("looked: %v", err)
	}
	testproc.Await(t, "word in the status", func() bool { return r.status().Hidden })
}
