//go:build unix

package daemon

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// An exposing is a host that exposes services, and its agent.
type exposing struct {
	*testing.T
	agent  *testconsul.Agent
	client *api.Client
	head   string // the beginning of the configuration
}

func newExposing(t *testing.T) *exposing {
	t.Helper()
	a, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	client, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	return &exposing{t, a, client, fmt.Sprintf("admin {\n  listen = \"unix://%s\"\n}\nconsul {\n  address = %q\n}\n"+
		"mesh {\n  bind = \"127.0.0.1\"\n  ports = \"23000-23099\"\n}\n", socket, a.HTTP)}
}

// register registers an instance of a service at the agent.
func (x *exposing) register(id, service, addr string) {
	x.Helper()
	at := netip.MustParseAddrPort(addr)
	err := x.client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: service,
		Address: at.Addr().String(), Port: int(at.Port())})
	if err != nil {
		x.Fatal(err)
	}
}

// sidecars returns the IDs of the sidecars at the agent.
func (x *exposing) sidecars() (ids []string) {
	x.Helper()
	all, err := x.client.Agent().Services()
	if err != nil {
		x.Fatal(err)
	}
	for id, s := range all {
		if s.Kind == api.ServiceKindConnectProxy {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (x *exposing) awaitSidecars(want ...string) {
	x.Helper()
	testproc.Await(x, fmt.Sprintf("the sidecars %q", want), func() bool { return slices.Equal(x.sidecars(), want) })
}

// intend replaces the intention from web to a service.
func (x *exposing) intend(service string, action api.IntentionAction) {
	x.Helper()
	_, _, err := x.client.ConfigEntries().Set(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions,
		Name: service, Sources: []*api.SourceIntention{{Name: "web", Action: action}}}, nil)
	if err != nil {
		x.Fatal(err)
	}
}

const dialsHello = "service \"hello\" {\n  listen = \"127.0.0.1:0\"\n  mesh { as = \"web\" }\n}\n"

// exposed returns an exposed service as the API shows it.
func (s *served) exposedAs(service string) (one admin.Exposed) {
	for _, e := range s.identities().Exposed {
		if e.Service == service {
			one = e
		}
	}
	return one
}

// hasEvent reports whether there is an event of the kind whose text ends with end.
func (s *served) hasEvent(kind endpoints.Kind, end string) bool {
	return slices.ContainsFunc(s.events.Export(), func(e endpoints.Event) bool {
		return e.Kind == kind && strings.HasSuffix(e.Text, end)
	})
}

// A service of this host is reached through both ends of one Lictor. Reloads add and remove exposed services, and
// intentions end connections. At the end, nothing is registered any more.
func TestServiceIsExposed(t *testing.T) {
	x := newExposing(t)
	x.register("hello-1", "hello", instance(t, "one"))
	x.register("other", "other", instance(t, "other"))
	const hello, other = "expose \"hello\" {}\n", "expose \"other\" {}\n"
	s := serveConfiguration(t, x.head+dialsHello+hello, nil)
	x.awaitSidecars("hello-1-lictor-proxy")
	testproc.Await(t, "an endpoint", func() bool { _, err := dial(t, s.address("hello")); return err == nil })
	c := reaches(t, s.address("hello"), "one")
	clients := func() string { return fmt.Sprint(s.exposedAs("hello").Instances[0].Clients) }
	testproc.Await(t, "the client's identity", func() bool { return strings.Contains(clients(), "/svc/web ") })

	s.mustReload(x.head+dialsHello+hello+other, "1 exposed service added")
	x.awaitSidecars("hello-1-lictor-proxy", "other-lictor-proxy")
	if a, b := s.address("mesh:hello"), s.address("mesh:other"); a == "" || b == "" || a == b {
		t.Errorf("listening at %q and %q", a, b)
	}
	s.mustReload(x.head+dialsHello+hello, "1 exposed service removed")
	x.awaitSidecars("hello-1-lictor-proxy")
	testproc.Await(t, "a closed listener", func() bool { return s.address("mesh:other") == "" })

	x.register("hello-2", "hello", instance(t, "two"))
	x.awaitSidecars("hello-1-lictor-proxy", "hello-2-lictor-proxy")
	if a, b := s.address("mesh:hello"), s.address("mesh:hello:2"); a == "" || b == "" || a == b {
		t.Errorf("listening at %q and %q", a, b)
	}

	x.intend("hello", api.IntentionActionDeny)
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that is denied now", n)
	}
	if _, err := dial(t, s.address("hello")); err == nil {
		t.Error("a client that is denied was served")
	}
	const denies = `intention "web" -> "hello" (precedence 9) denies`
	for _, want := range []string{
		"any more, and is cut off: " + denies, "/svc/web may not use the service: " + denies,
	} {
		testproc.Await(t, want, func() bool { return s.hasEvent(endpoints.KindForbidden, want) })
	}
	if e, _ := s.explainAccess(t.Context(), "web", "hello"); !e.Known || e.Allowed ||
		e.By != denies {
		t.Errorf("got %+v", e)
	}
	s.stop()
	x.awaitSidecars()
}

// A reload exposes the first service, and no earlier one. Another range of ports moves it.
func TestReloadExposesTheFirstService(t *testing.T) {
	x := newExposing(t)
	x.register("hello", "hello", instance(t, "one"))
	s := serveConfiguration(t, x.head+dialsHello, nil)
	s.mustReload(x.head+dialsHello+"expose \"hello\" {}\n", "1 exposed service added")
	x.awaitSidecars("hello-lictor-proxy")
	testproc.Await(t, "an endpoint", func() bool { _, err := dial(t, s.address("hello")); return err == nil })
	before := s.address("mesh:hello")
	moved := strings.Replace(x.head, "23000-23099", "23100-23199", 1)
	s.mustReload(moved+dialsHello+"expose \"hello\" {}\n", "changed: mesh.ports")
	testproc.Await(t, "another listener", func() bool {
		now := s.address("mesh:hello")
		return now != "" && now != before
	})
	x.awaitSidecars("hello-lictor-proxy")
	testproc.Await(t, "the endpoint has moved", func() bool {
		_, err := dial(t, s.address("hello"))
		return err == nil
	})
	s.stop()
	x.awaitSidecars()
}

// A reload that goes to another agent leaves no registration at the former one.
func TestReloadMovesExposedServicesToAnotherAgent(t *testing.T) {
	x, y := newExposing(t), newExposing(t)
	x.register("hello", "hello", instance(t, "one"))
	y.register("hello", "hello", instance(t, "one"))
	s := serveConfiguration(t, x.head+"expose \"hello\" {}\n", nil)
	x.awaitSidecars("hello-lictor-proxy")
	moved := strings.Replace(x.head, x.agent.HTTP, y.agent.HTTP, 1)
	if _, err := s.reload(moved + "expose \"hello\" {}\n"); err != nil {
		t.Fatal(err)
	}
	y.awaitSidecars("hello-lictor-proxy")
	x.awaitSidecars()
	s.stop()
	y.awaitSidecars()
}

// An upgrade hands the listeners and registrations over, and the former process judges its live connections.
func TestUpgradeKeepsExposedServices(t *testing.T) {
	x := newExposing(t)
	x.register("hello", "hello", instance(t, "one"))
	s := replaceable(t, x.head+dialsHello+"expose \"hello\" {}\n")
	x.awaitSidecars("hello-lictor-proxy")
	testproc.Await(t, "an endpoint", func() bool { _, err := dial(t, s.address("hello")); return err == nil })
	through := s.address("hello")
	c := reaches(t, through, "one")
	by, err := s.Upgrade(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	defer end(t, by.PID)
	x.awaitSidecars("hello-lictor-proxy")
	reaches(t, through, "one")
	x.intend("hello", api.IntentionActionDeny)
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a connection that is denied now", n)
	}
}

// What is not ready, not there or not possible is not registered, and the API says why.
func TestServicesThatAreNotExposed(t *testing.T) {
	x := newExposing(t)
	x.register("taken", "taken", instance(t, "one"))
	sidecar := &api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, ID: "envoy", Name: "taken-sidecar-proxy",
		Port: 1, Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "taken",
			DestinationServiceID: "taken"}}
	if err := x.client.Agent().ServiceRegister(sidecar); err != nil {
		t.Fatal(err)
	}
	s := serveConfiguration(t, x.head+"expose \"taken\" {}\nexpose \"absent\" { intentions = \"permissive\" }\n", nil)
	s.awaitLog("permissive")
	for service, want := range map[string]string{"absent": "no instance is registered", "taken": "another sidecar"} {
		testproc.Await(t, want, func() bool { return strings.Contains(s.exposedAs(service).Reason, want) })
	}
	if got := x.sidecars(); !slices.Equal(got, []string{"envoy"}) {
		t.Errorf("got %q", got)
	}
	if !s.ready() {
		t.Error("not ready, though there is nothing to wait for")
	}
	s.stop()
}

func TestListedIdentities(t *testing.T) {
	const id = "spiffe://td.consul/ns/default/dc/dc2/svc/web"
	client := mesh.Client{URI: id, Namespace: "default", Service: "web", Datacenter: "dc2"}
	for _, tt := range []struct {
		list []string
		want bool
	}{
		{nil, true}, {[]string{"api", "web"}, true}, {[]string{id}, true}, {[]string{"api"}, false},
		{[]string{"spiffe://td.consul/ns/default/dc/dc1/svc/web"}, false},
	} {
		x := &exposure{settings: config.Expose{AllowIdentities: tt.list}, namespace: "default"}
		if got := x.lists(client); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.list, got, tt.want)
		}
	}
	x := &exposure{settings: config.Expose{AllowIdentities: []string{"web"}}, namespace: "team-a"}
	if x.lists(client) {
		t.Error("a name stands for a service of another namespace")
	}
}
