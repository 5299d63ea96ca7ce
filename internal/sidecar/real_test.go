//go:build unix

package sidecar

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

var web = Service{Name: "web"}

// has returns a condition: the Registrar has said what.
func (s *subject) has(what What) func() bool {
	return func() bool { return slices.Contains(s.said(), what) }
}

// exposed returns the exposed instance with this ID, or an empty one.
func (s *subject) exposed(id string) Instance {
	for _, i := range s.server.set() {
		if i.ServiceID == id {
			return i
		}
	}
	return Instance{}
}

// refusal returns why an instance of "web" is not exposed, or nil.
func (s *subject) refusal(id string) error {
	for _, r := range s.State().Refused {
		if r.Service == "web" && r.ServiceID == id {
			return r.Err
		}
	}
	return nil
}

// end does what the end of a process does.
func (s *subject) end(t *testing.T) {
	t.Helper()
	if err := s.End(context.Background()); err != nil {
		t.Errorf("end: %v", err)
	}
	s.stop()
}

// Instances that come, go, and change their port or address are followed. Each sidecar says what its instance says.
func TestRealInstancesAreFollowed(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 4)
	first := int(ports.First)
	c.register(t, api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 8081, Tags: []string{"blue"},
		Meta: map[string]string{"version": "v1"}, Weights: &api.AgentWeights{Passing: 7, Warning: 2}})
	c.register(t, api.AgentServiceRegistration{ID: "other", Name: "other", Port: 8090})
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	c.awaitPeers(t, first)
	entries, _, err := c.api.Health().Connect("web", "", true, nil)
	if err != nil || len(entries) != 1 {
		t.Fatalf("got %v, %v", entries, err)
	}
	got := entries[0].Service
	if got.Kind != api.ServiceKindConnectProxy || got.Service != "web-sidecar-proxy" || got.Address != "127.0.0.1" ||
		got.Proxy.DestinationServiceName != "web" || got.Proxy.DestinationServiceID != "web-1" ||
		got.Proxy.LocalServiceAddress != "127.0.0.1" || got.Proxy.LocalServicePort != 8081 ||
		!slices.Equal(got.Tags, []string{"blue"}) || got.Meta["version"] != "v1" || got.Meta[MarkOwner] == "" ||
		got.Weights != (api.AgentWeights{Passing: 7, Warning: 2}) || got.EnableTagOverride {
		t.Errorf("registered %+v with %+v", got, got.Proxy)
	}
	c.web(t, "web-2", 8082)
	c.awaitPeers(t, first, first+1)
	c.register(t, api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 9081, Tags: []string{"green"},
		Meta: map[string]string{"version": "v2"}})
	testproc.Await(t, "the new port is served", func() bool { return s.exposed("web-1").Local.Port() == 9081 })
	testproc.Await(t, "the new port, tag and version are registered", func() bool {
		now := c.service("web-1" + idSuffix)
		return now != nil && now.Proxy.LocalServicePort == 9081 && now.Port == first &&
			slices.Equal(now.Tags, []string{"green"}) && now.Meta["version"] == "v2"
	})
	c.remove(t, "web-1")
	c.awaitPeers(t, first+1)
	testproc.Await(t, "its listener is closed", func() bool { return len(s.server.set()) == 1 })
	c.web(t, "web-1", 8081) // with its former port
	c.awaitPeers(t, first, first+1)
	s.Apply(nil)
	c.awaitPeers(t)
	testproc.Await(t, "no listener", func() bool { return len(s.server.set()) == 0 })
	if c.service("other") == nil || c.service("web-1") == nil {
		t.Error("a registration of somebody else is gone")
	}
}

// The health of the instance is the health of its sidecar.
func TestRealHealthFollowsTheInstance(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	c.register(t, api.AgentServiceRegistration{ID: "web-1", Name: "web", Port: 8081,
		Check: &api.AgentServiceCheck{CheckID: "web-1", TTL: "10m", Status: api.HealthPassing}})
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	c.awaitPeers(t, int(ports.First))
	for _, status := range []string{api.HealthCritical, api.HealthPassing} {
		if err := c.api.Agent().UpdateTTL("web-1", "", status); err != nil {
			t.Fatal(err)
		}
		if status == api.HealthCritical {
			c.awaitPeers(t)
		} else {
			c.awaitPeers(t, int(ports.First))
		}
	}
	s.end(t)
}

// After a kill, the next process finds the registrations: it keeps the port of those that it needs, and removes others.
func TestRealOrphansAreRemoved(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 4)
	c.web(t, "web-0", 8080)
	c.web(t, "web-1", 8081)
	c.register(t, api.AgentServiceRegistration{ID: "api", Name: "api", Port: 8090})
	o := Options{Consul: c.client(t), Ports: ports}
	killed := start(t, o, web, Service{Name: "api"})
	testproc.Await(t, "all registered", func() bool {
		return c.service("web-0"+idSuffix) != nil && c.service("web-1"+idSuffix) != nil &&
			c.service("api"+idSuffix) != nil
	})
	port := c.service("web-1" + idSuffix).Port
	killed.stop()
	c.remove(t, "web-0")
	if err := c.api.Agent().EnableServiceMaintenance("web-1"+idSuffix, "left by the former process"); err != nil {
		t.Fatal(err)
	}
	c.awaitPeers(t) // otherwise Consul could write to its catalog that the maintenance begins after it has ended
	start(t, o, web)
	c.awaitPeers(t, port)
	testproc.Await(t, "orphans are removed", func() bool {
		return c.service("web-0"+idSuffix) == nil && c.service("api"+idSuffix) == nil
	})
	if c.service("api") == nil {
		t.Error("the instance of the orphan is gone too")
	}
}

// An instance with another sidecar is left to it, until that one goes.
func TestRealAnotherSidecarWins(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	c.web(t, "web-1", 8081)
	envoy := *registrationFor(t, "web-1", 7777)
	c.register(t, envoy)
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	testproc.Await(t, "refused", s.has(Refused))
	if err := s.refusal("web-1"); !errors.Is(err, ErrSidecar) || !strings.Contains(err.Error(), envoy.ID) {
		t.Errorf("refused because: %v", err)
	}
	if !strings.Contains(s.log.String(), `[WARN]  sidecar: instance not exposed`) {
		t.Error("no warning")
	}
	c.remove(t, envoy.ID)
	c.awaitPeers(t, int(ports.First))
	c.register(t, envoy)
	testproc.Await(t, "left to the other sidecar", func() bool {
		return c.service("web-1"+idSuffix) == nil && len(s.server.set()) == 0
	})
	if c.service(envoy.ID) == nil {
		t.Error("the other sidecar is gone")
	}
	c.remove(t, envoy.ID)
	c.awaitPeers(t, int(ports.First))
}

// registrationFor returns the registration of another program's sidecar.
func registrationFor(t *testing.T, id string, port int) *api.AgentServiceRegistration {
	t.Helper()
	return &api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, ID: id + "-sidecar-proxy", Name: "web-sidecar-proxy", Port: port,
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web", DestinationServiceID: id,
			LocalServiceAddress: "127.0.0.1", LocalServicePort: 8081},
	}
}

// Of two Lictors at one agent, the first keeps the instance; the second takes over when the first has ended, or was
// killed.
func TestRealTwoLictorsDoNotFight(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	a := start(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, web)
	testproc.Await(t, "the first has it", a.has(Exposed))
	b := start(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, web)
	testproc.Await(t, "the second is refused", b.has(Refused))
	if err := b.refusal("web-1"); !errors.Is(err, ErrSidecar) || !strings.Contains(err.Error(), "another lictor") {
		t.Errorf("refused because: %v", err)
	}
	a.end(t)
	testproc.Await(t, "the second has it", b.has(Exposed))
	b.stop() // as if it was killed
	again := start(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, web)
	testproc.Await(t, "the third is refused", again.has(Refused))
	testproc.Await(t, "the agent says that the second does not listen, and the third takes over", again.has(Exposed))
	c.awaitPeers(t, int(again.exposed("web-1").Listen.Port()))
}

// What another program does to a registration is undone.
func TestRealLostRegistrationsComeBack(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	port := int(ports.First)
	c.web(t, "web-1", 8081)
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	c.awaitPeers(t, port)
	c.remove(t, "web-1"+idSuffix)
	c.awaitPeers(t, port)
	changed := *registrationFor(t, "web-1", 4444)
	changed.ID, changed.Meta = "web-1"+idSuffix, map[string]string{MarkOwner: s.State().Owner}
	c.register(t, changed)
	c.awaitPeers(t, port)
	if !strings.Contains(s.log.String(), "another program has changed a registration") {
		t.Error("the change is not in the log")
	}
}

// While the agent is away, and after it came back without data, the listeners stay.
func TestRealAgentWithoutDataClosesNoListener(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	c.web(t, "web-1", 8081)
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	testproc.Await(t, "exposed", s.has(Exposed))
	before := s.server.set()
	c.Kill()
	testproc.Await(t, "the error", func() bool { return s.State().Err != nil })
	if err := c.Restart(t.Context()); err != nil { // in dev mode, everything is lost
		t.Fatal(err)
	}
	testproc.Await(t, "the loss", s.has(Lost))
	if now := s.server.set(); !slices.Equal(now, before) {
		t.Errorf("served %v, want %v", now, before)
	}
	if c.service("web-1"+idSuffix) != nil {
		t.Error("registered without its instance")
	}
	c.web(t, "web-1", 8082)
	c.awaitPeers(t, int(ports.First))
	if now := s.exposed("web-1"); now.Listen != before[0].Listen || now.Local.Port() != 8082 {
		t.Errorf("served %v", now)
	}
}

// In a drain, peers take other instances while the listener stays. At the end, the registration is gone.
func TestRealDrainAndEnd(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	c.web(t, "web-1", 8081)
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	c.awaitPeers(t, int(ports.First))
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.awaitPeers(t)
	if c.service("web-1"+idSuffix) == nil || len(s.server.set()) != 1 {
		t.Error("a drain ends the registration or the listener")
	}
	c.web(t, "web-2", 8082) // is too late
	if err := s.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.service("web-1"+idSuffix) != nil || c.service("web-2"+idSuffix) != nil {
		t.Error("registered after the end")
	}
	if err := s.End(t.Context()); err != nil {
		t.Errorf("a second end: %v", err)
	}
}

// An upgrade passes the registrations on, so that peers do not notice it.
func TestRealUpgradeWithoutAFlap(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 2)
	port := int(ports.First)
	c.web(t, "web-1", 8081)
	o := Options{Consul: c.client(t), Ports: ports}
	former := start(t, o, web)
	c.awaitPeers(t, port)
	judge := c.always(t, port, true)
	o.Saved = former.Export()
	former.Release()
	former.stop() // frees the port, which a real upgrade passes on
	successor := start(t, o, web)
	testproc.Await(t, "registered by the successor", func() bool {
		all := successor.State().Instances
		return len(all) == 1 && !all[0].Registered.IsZero()
	})
	judge()
	if err := former.End(t.Context()); err != nil || c.service("web-1"+idSuffix) == nil {
		t.Errorf("the former process removed the registration: %v", err)
	}
	if slices.Contains(successor.said(), Exposed) {
		t.Error("the successor says that an instance is new")
	}
	successor.end(t)
	if c.service("web-1"+idSuffix) != nil {
		t.Error("registered after the end of the successor")
	}
}

// An agent that was killed and restarts with its data has the registration. It may be critical until the agent's next
// check of the listener.
func TestRealAgentRestartsWithItsData(t *testing.T) {
	t.Parallel()
	server := startAgent(t, testconsul.Options{Servers: 1, Node: "server"})
	c := startAgent(t, testconsul.Options{Client: true, Join: server.LAN, Node: "client"})
	ports := freePorts(t, 2)
	c.web(t, "web-1", 8081)
	s := start(t, Options{Consul: c.client(t), Ports: ports}, web)
	server.awaitPeers(t, int(ports.First))
	judge := server.always(t, int(ports.First), false)
	c.Kill()
	testproc.Await(t, "the error", func() bool { return s.State().Err != nil })
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	testproc.Await(t, "an answer", func() bool { return s.State().Answered.After(back) })
	server.awaitPeers(t, int(ports.First))
	judge()
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	server.awaitPeers(t)
}

// Without an agent, the end of Lictor does not hang.
func TestRealEndWithoutAnAgent(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	s := start(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, web)
	testproc.Await(t, "exposed", s.has(Exposed))
	if err := testproc.Freeze(c.Pid()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if drained, ended := s.Drain(ctx), s.End(ctx); drained == nil || ended == nil {
		t.Errorf("a stopped agent gave no error: %v, %v", drained, ended)
	}
	s.stop()
	if err := c.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// With other ports or another address, a reload gives each instance a new listener, and removes what is registered
// under the former mark.
func TestRealNewRange(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	former := start(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, web)
	testproc.Await(t, "exposed", former.has(Exposed))
	saved := former.Export()
	former.Release()
	former.stop()
	ports := freePorts(t, 2)
	next := start(t, Options{Consul: c.client(t), Ports: ports, Saved: saved}, web)
	c.awaitPeers(t, int(ports.First))
	next.end(t)
}

// Ports are remembered, over a damaged file too; and a port that another program uses is skipped.
func TestRealPortsAreRemembered(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 5)
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, ports.First).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.web(t, "web-1", 8081)
	c.web(t, "web-2", 8082)
	o := Options{Consul: c.client(t), Ports: ports, StateDir: filepath.Join(t.TempDir(), "state")}
	a := start(t, o, web)
	first := int(ports.First)
	c.awaitPeers(t, first+1, first+2)
	c.remove(t, "web-1")
	c.awaitPeers(t, first+2)
	a.end(t)
	c.awaitPeers(t)
	b := start(t, o, web)
	c.awaitPeers(t, first+2) // and not the lowest
	b.end(t)
	file := filepath.Join(o.StateDir, portsFile)
	if err := os.WriteFile(file, []byte("lictor-sidecars 1 0\n{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, o, web)
	c.awaitPeers(t, first+1)
	if !strings.Contains(d.log.String(), "cannot be read") {
		t.Error("the damaged file is not in the log")
	}
	testproc.Await(t, "a good file", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		_, err = decodePorts(text)
		return err == nil
	})
}

// A port that another program takes before the listener is open is not registered.
func TestRealPortTakenInTheMeantime(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	ports := freePorts(t, 3)
	c.web(t, "web-1", 8081)
	thief := make(chan net.Listener, 1)
	s := startWith(t, Options{Consul: c.client(t), Ports: ports}, func(r *Registrar) {
		serve := r.o.Instances
		r.o.Instances = func(all []Instance) error {
			if len(all) == 1 && all[0].Listen.Port() == ports.First && len(thief) == 0 {
				l, err := net.Listen("tcp", all[0].Listen.String())
				if err != nil {
					return err
				}
				thief <- l
			}
			return serve(all)
		}
	}, web)
	c.awaitPeers(t, int(ports.First)+1)
	if !strings.Contains(s.log.String(), syscall.EADDRINUSE.Error()) {
		t.Error("the log does not say that the port was taken")
	}
	_ = (<-thief).Close()
}

// A token that loses its rights is a warning. What is exposed stays, and is registered again later.
func TestRealTokenLosesItsRights(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{ACL: true})
	ports := freePorts(t, 2)
	c.web(t, "web-1", 8081)
	write := `service "web" { policy = "write" } service "web-sidecar-proxy" { policy = "write" }`
	policy, _, err := c.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: write}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	allow := func(rules string) {
		t.Helper()
		policy.Rules = rules
		if policy, _, err = c.api.ACL().PolicyUpdate(policy, nil); err != nil {
			t.Fatal(err)
		}
	}
	client := clientOf(t, consul.Options{Address: c.HTTP, Token: token.SecretID})
	s := startWith(t, Options{Consul: client, Ports: ports}, func(r *Registrar) { r.run.refresh = interval }, web)
	c.awaitPeers(t, int(ports.First)) // or the agent would tell the servers later, with a token without rights
	served := s.server.set()
	for _, rules := range []string{strings.ReplaceAll(write, "write", "read"), ""} {
		allow(rules)
		if rules != "" {
			testproc.Await(t, "the failure", s.has(Failed))
			if err := s.State().Instances[0].Err; err == nil || !strings.Contains(err.Error(), "403") {
				t.Errorf("the state has the error %v", err)
			}
		} else {
			testproc.Await(t, "the missing rights", func() bool {
				return strings.Contains(s.log.String(), "the token may not read all services")
			})
		}
		if now := s.server.set(); !slices.Equal(now, served) || c.service("web-1"+idSuffix) == nil {
			t.Errorf("with the rights %q lictor serves %v", rules, now)
		}
	}
	allow(write)
	testproc.Await(t, "it works again", s.has(Works))
	c.awaitPeers(t, int(ports.First))
	s.end(t)
}

// A maintenance of a sidecar by an operator stays, although the registration is repeated.
func TestRealOperatorsMaintenanceStays(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	s := startWith(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)},
		func(r *Registrar) { r.run.refresh = interval }, web)
	testproc.Await(t, "exposed", s.has(Exposed))
	if err := c.api.Agent().EnableServiceMaintenance("web-1"+idSuffix, "by an operator"); err != nil {
		t.Fatal(err)
	}
	c.awaitPeers(t)
	at := s.State().Instances[0].Registered
	testproc.Await(t, "registered again", func() bool { return s.State().Instances[0].Registered.After(at) })
	if peers := c.peers(t); len(peers) != 0 {
		t.Errorf("peers use %v", peers)
	}
}

// A changed registration of an exposed instance is noticed without the next question for all services.
func TestRealChangesAreNoticedAtOnce(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	s := startWith(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, func(r *Registrar) {
		r.run.interval = 24 * time.Hour
	}, web)
	testproc.Await(t, "exposed", s.has(Exposed))
	for port := 8082; port < 8085; port++ {
		c.web(t, "web-1", port)
		testproc.Await(t, "the new port", func() bool { return int(s.exposed("web-1").Local.Port()) == port })
	}
	c.remove(t, "web-1")
	testproc.Await(t, "it has left", s.has(Ended))
	s.stop()
}

// A listener that the agent cannot connect to is a warning, because peers do not use it.
func TestRealListenerThatTheAgentCannotReach(t *testing.T) {
	t.Parallel()
	c := startAgent(t, testconsul.Options{})
	c.web(t, "web-1", 8081)
	var deaf atomic.Bool
	deaf.Store(true)
	s := startWith(t, Options{Consul: c.client(t), Ports: freePorts(t, 2)}, func(r *Registrar) {
		serve := r.o.Instances
		r.o.Instances = func(all []Instance) error {
			if deaf.Load() {
				return nil
			}
			return serve(all)
		}
	}, web)
	testproc.Await(t, "the agent cannot connect", s.has(CutOff))
	if text := s.State().Instances[0].CutOff; !strings.Contains(text, "refused") {
		t.Errorf("the state says %q", text)
	}
	deaf.Store(false)
	c.web(t, "web-1", 8082) // has the listener opened
	testproc.Await(t, "the agent can connect", s.has(Works))
}
