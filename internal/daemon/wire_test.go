package daemon

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/sidecar"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// wired has everything that the daemon makes from a service of the configuration.
type wired struct {
	Proxy   []proxy.Service
	Balance lb.Options
	Watches []discovery.Watch
	Sets    []lb.Endpoints
	Checks  map[string]lb.Check
	Asked   map[string]healthcheck.Check
	Kernel  []string // what KernelPaths says
}

// prepareKeys prepares the TLS of the services of cfg.
func prepareKeys(k *keyring, cfg *config.Config) (map[string]*serviceTLS, step, error) {
	identities, err := k.mesh.prepare(cfg)
	if err != nil {
		return nil, step{}, err
	}
	return k.prepare(cfg, identities)
}

func wire(s config.Service) wired {
	cfg := &config.Config{Services: []config.Service{s}}
	k := newKeyring(hclog.NewNullLogger(), nil)
	k.mesh.client = new(Daemon).clientOf
	keys, _, err := prepareKeys(k, cfg)
	if err != nil {
		panic(err)
	}
	return wired{proxyServices(cfg, keys), balancing(s, keys[s.Name].probe()), watchesOf(cfg), staticSets(cfg),
		checksOf(cfg), healthChecksOf(cfg), KernelPaths(cfg)}
}

// change gives v another value, which is not zero. It reports whether it could.
func change(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		return false
	}
	return true
}

// Every argument of a service is used. An argument that the daemon ignored would have no effect.
func TestEveryArgumentOfAServiceIsUsed(t *testing.T) {
	for _, protocol := range []config.Protocol{config.TCP, config.UDP} {
		used := map[string]bool{}
		base := func() config.Service {
			return config.Service{Name: "web", Protocol: protocol, Consul: &config.ConsulQuery{Service: "web"}}
		}
		before := wire(base())
		check := func(name string, s config.Service) {
			used[name] = !reflect.DeepEqual(wire(s), before)
		}
		fields := reflect.TypeFor[config.Service]()
		for i := range fields.NumField() {
			s := base()
			field := reflect.ValueOf(&s).Elem().Field(i)
			switch name := fields.Field(i).Name; name {
			case "Consul", "Failover", "Static", "OnLeave", "Check", "Listen", "Allow", "Deny", "DeclRange",
				"TimeoutRange", "SendProxyUDP", "SNI", "PreferStrict":
			default:
				if !change(field) {
					t.Errorf("this test does not know how to change %s", name)
				}
				check(name, s)
			}
		}
		check("Listen", with(base(),
			func(s *config.Service) { s.Listen = []config.Listener{{Path: "/run/a"}} }))
		some := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		check("Allow", with(base(), func(s *config.Service) { s.Allow = some }))
		near := with(base(), func(s *config.Service) { s.Prefer = "zone" })
		strict := with(near, func(s *config.Service) { s.PreferStrict = true })
		used["PreferStrict"] = !reflect.DeepEqual(wire(near), wire(strict))
		check("SNI", with(base(), func(s *config.Service) { s.SNI = []string{"a.test"} }))
		check("Deny", with(base(), func(s *config.Service) { s.Deny = some }))
		check("SendProxyUDP", with(base(), func(s *config.Service) { s.SendProxyUDP = config.ProxyFirst }))
		check("Failover", with(base(),
			func(s *config.Service) { s.Failover = []config.ConsulQuery{{Service: "other"}} }))
		check("Static", with(base(), func(s *config.Service) { s.Static = &config.Static{} }))
		check("Check", with(base(), func(s *config.Service) { s.Check = &config.Check{Interval: 1} }))
		query := reflect.TypeFor[config.ConsulQuery]()
		for i := range query.NumField() {
			s := base()
			field := reflect.ValueOf(s.Consul).Elem().Field(i)
			switch field.Kind() {
			case reflect.Slice:
				field.Set(reflect.ValueOf([]string{"x"}))
			case reflect.Struct: // the position of the filter in the file
				continue
			default:
				change(field)
			}
			check("Consul."+query.Field(i).Name, s)
		}
		onLeave := reflect.TypeFor[config.OnLeave]()
		for i := range onLeave.NumField() {
			s := base()
			change(reflect.ValueOf(&s.OnLeave).Elem().Field(i))
			check("OnLeave."+onLeave.Field(i).Name, s)
		}
		unused := map[config.Protocol][]string{config.UDP: {"MaxQueue", "QueueTimeout", "EmptyWait"}}[protocol]
		for name, is := range used {
			if is == slices.Contains(unused, name) {
				t.Errorf("%s: %s is used: %v", protocol, name, is)
			}
		}
		if len(used) < 30 {
			t.Errorf("only %d arguments were tried", len(used))
		}
	}
}

// Every argument of a check is used, for HTTP checks and for other checks.
func TestEveryArgumentOfACheckIsUsed(t *testing.T) {
	for _, tt := range []struct {
		check  config.Check
		unused []string
	}{
		{config.Check{}, []string{"Port", "MaxSilence", "TLS"}},
		{config.Check{HTTP: "/"}, []string{"Send", "Expect"}},
	} {
		fields := reflect.TypeFor[config.Check]()
		for i := range fields.NumField() {
			changed, name := tt.check, fields.Field(i).Name
			if !change(reflect.ValueOf(&changed).Elem().Field(i)) {
				t.Errorf("this test does not know how to change %s", name)
			}
			before := wire(config.Service{Name: "web", Static: &config.Static{}, Check: &tt.check})
			after := wire(config.Service{Name: "web", Static: &config.Static{}, Check: &changed})
			if reflect.DeepEqual(before, after) != slices.Contains(tt.unused, name) {
				t.Errorf("%+v: %s is used: %v", tt.check, name, !reflect.DeepEqual(before, after))
			}
		}
	}
}

func with(s config.Service, change func(*config.Service)) config.Service {
	change(&s)
	return s
}

func TestWatchesHaveSourcesInOrder(t *testing.T) {
	s := config.Service{
		Name: "web", Consul: &config.ConsulQuery{Service: "web", Tags: []string{"v2"}},
		Failover: []config.ConsulQuery{{Service: "web", Datacenter: "dc2"}, {Service: "web", Peer: "east"}},
		Static: &config.Static{Endpoints: []config.StaticEndpoint{
			{Addr: netip.MustParseAddrPort("10.0.0.1:80")},
			{Host: "web.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 81)},
		}},
		FailoverBelow: 2, FailbackHold: time.Minute,
	}
	w := watchOf(&config.Config{}, s)
	if w.Service != "web" || w.Query.Service != "web" || !slices.Equal(w.Query.Tags, []string{"v2"}) {
		t.Errorf("got %+v", w)
	}
	if len(w.Next) != 3 || w.Next[0].Query.Datacenter != "dc2" || w.Next[1].Query.Peer != "east" {
		t.Fatalf("got %+v", w.Next)
	}
	want := []lb.Endpoint{
		{ID: "10.0.0.1:80", Addr: netip.MustParseAddrPort("10.0.0.1:80")},
		{ID: "web.example.com:81", Host: "web.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 81)},
	}
	if !slices.Equal(w.Next[2].Endpoints, want) {
		t.Errorf("got %+v, want %+v", w.Next[2].Endpoints, want)
	}
	if w.Failover.Below != 2 || w.Failover.Hold != time.Minute {
		t.Errorf("got %+v", w.Failover)
	}
}

// How much discovery must find out about vanished endpoints depends on the settings for their connections.
func TestLeavesOf(t *testing.T) {
	const cut = config.LeaveCut
	for _, tt := range []struct {
		name                    string
		deregistered, unmatched config.Leave
		want                    discovery.Leaves
	}{
		{"all finish", config.LeaveFinish, config.LeaveFinish, discovery.LeavesIgnored},
		{"the same", cut, cut, discovery.LeavesConfirmed},
		{"not the same", cut, config.LeaveFinish, discovery.LeavesExplained},
		{"not the same either", config.LeaveFinish, cut, discovery.LeavesExplained},
	} {
		if got := leavesOf(config.OnLeave{Deregistered: tt.deregistered, Unmatched: tt.unmatched}); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// The enumerations of the configuration and of the other packages have the same elements.
func TestEnumerations(t *testing.T) {
	for from, want := range map[config.Balance]lb.Policy{
		config.RoundRobin: lb.PolicyRoundRobin, config.LeastConnections: lb.PolicyLeastConnections,
		config.RandomTwo: lb.PolicyRandomTwo, config.SourceHash: lb.PolicySourceHash,
	} {
		if got := policyOf(from); got != want {
			t.Errorf("%v: got %v, want %v", from, got, want)
		}
	}
	for from, want := range map[config.Protocol]proxy.Protocol{config.TCP: proxy.TCP, config.UDP: proxy.UDP} {
		if got := protocolOf(from); got != want || got.String() != from.String() {
			t.Errorf("%v: got %v, want %v", from, got, want)
		}
		network := networkOf(from)
		if network != networkBy(want) || balancing(config.Service{Protocol: from}, nil).Network != network {
			t.Errorf("%v: networks differ", from)
		}
	}
	if engineOf(config.EnginePortable) != proxy.EnginePortable || engineOf(config.EngineAuto) != proxy.EngineAuto {
		t.Error("engines differ")
	}
}

// A service is in Consul or has only static endpoints. The former has a watch, the latter a set.
func TestServicesAreInConsulOrStatic(t *testing.T) {
	list := &config.Static{Endpoints: []config.StaticEndpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:80")}}}
	cfg := &config.Config{Services: []config.Service{
		{Name: "list", Static: list},
		{Name: "consul", Consul: &config.ConsulQuery{Service: "web"}},
		{Name: "both", Consul: &config.ConsulQuery{Service: "web"}, Static: list},
	}}
	if got := consulNames(cfg); !slices.Equal(got, []string{"consul", "both"}) {
		t.Errorf("in Consul: got %v", got)
	}
	if got := staticNames(cfg); !slices.Equal(got, []string{"list"}) {
		t.Errorf("static: got %v", got)
	}
	if got := serviceNames(cfg); len(got) != 3 {
		t.Errorf("all: got %v", got)
	}
	if got := watchesOf(cfg); len(got) != 2 || got[1].Service != "both" {
		t.Errorf("watches: got %+v", got)
	}
	if got := staticSets(cfg); len(got) != 1 || got[0].Service != "list" || len(got[0].Endpoints) != 1 {
		t.Errorf("sets: got %+v", got)
	}
	if got := sourceOf(&cfg.Services[2]); got != `consul service "web"; else 1 static endpoint` {
		t.Errorf("source: got %q", got)
	}
}

func TestWhatOf(t *testing.T) {
	for _, tt := range []struct {
		query config.ConsulQuery
		want  string
	}{
		{config.ConsulQuery{Service: "web"}, `consul service "web"`},
		{config.ConsulQuery{Service: "web", Datacenter: "dc2"}, `consul service "web", datacenter "dc2"`},
		{config.ConsulQuery{Service: "web", Peer: "east"}, `consul service "web", peer "east"`},
		{config.ConsulQuery{PreparedQuery: "near"}, `prepared query "near"`},
		{config.ConsulQuery{Service: "web", Port: "metrics", Address: "wan"},
			`consul service "web", port "metrics", address "wan"`},
	} {
		if got := whatOf(tt.query); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// A reload that changes one query puts only that service's sets in doubt.
func TestChangedWatches(t *testing.T) {
	watch := func(name, tag string) discovery.Watch {
		return discovery.Watch{Service: name, Query: discovery.Query{Service: name, Tags: []string{tag}}}
	}
	old := []discovery.Watch{watch("same", "a"), watch("changed", "a"), watch("gone", "a")}
	next := []discovery.Watch{watch("new", "a"), watch("changed", "b"), watch("same", "a")}
	want := map[string]bool{"changed": true, "gone": true}
	if got := changedWatches(old, next); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Every argument of the tls block of a check is used.
func TestEveryArgumentOfATLSCheckIsUsed(t *testing.T) {
	wired := func(t config.TLS) wired {
		return wire(config.Service{Name: "web", Check: &config.Check{HTTP: "/", TLS: &t}})
	}
	fields := reflect.TypeFor[config.TLS]()
	for i := range fields.NumField() {
		var changed config.TLS
		change(reflect.ValueOf(&changed).Elem().Field(i))
		if reflect.DeepEqual(wired(config.TLS{}), wired(changed)) {
			t.Errorf("%s is not used", fields.Field(i).Name)
		}
	}
}

// A check over HTTP of a service with endpoint_tls uses HTTPS with the same settings, unless another program answers it
// or it has settings of its own.
func TestChecksOfServicesWithTLS(t *testing.T) {
	ends := &config.EndpointTLS{CAFile: "ca", CertFile: "cert", KeyFile: "key", ServerName: "name", CAPath: "path",
		InsecureSkipVerify: true}
	of := func(c config.Check, e *config.EndpointTLS) healthcheck.Check {
		s := config.Service{Name: "web", Check: &c, EndpointTLS: e}
		return healthChecksOf(&config.Config{Services: []config.Service{s}})["web"]
	}
	all := certificates.Options{CAFile: "ca", CertFile: "cert", KeyFile: "key", ServerName: "name", CAPath: "path",
		InsecureSkipVerify: true}
	if got := of(config.Check{HTTP: "/"}, ends); !got.HTTPS || got.TLS != all {
		t.Errorf("got %+v", got)
	}
	if got := of(config.Check{HTTP: "/", Port: 8008}, ends); got.HTTPS {
		t.Errorf("got %+v for another port", got)
	}
	if got := of(config.Check{HTTP: "/", TLS: &config.TLS{CAFile: "own"}}, ends); got.TLS.CAFile != "own" {
		t.Errorf("got %+v for settings of its own", got)
	}
	if got := of(config.Check{HTTP: "/"}, nil); got.HTTPS {
		t.Errorf("got %+v without TLS", got)
	}
}

// wiredExposed has what the daemon makes from an expose block for an instance.
type wiredExposed struct {
	Proxy   []proxy.Service
	TLS     proxy.AcceptTLS
	Balance lb.Options
	Denied  string // why a client is denied; empty if it is not
}

func wireExposed(s config.Expose) (w wiredExposed) {
	cfg := &config.Config{Expose: []config.Expose{s}}
	k := newKeyring(hclog.NewNullLogger(), nil)
	k.mesh.client = new(Daemon).clientOf
	store, err := k.mesh.prepare(cfg)
	if err != nil {
		panic(err)
	}
	e := newExposures(new(Daemon))
	all := e.served([]sidecar.Instance{{Service: s.Name, Listen: netip.MustParseAddrPort("127.0.0.1:23000"),
		Local: netip.MustParseAddrPort("127.0.0.1:80")}}, e.open(cfg, store))
	w.Proxy, w.TLS, w.Balance = exposedServices(all), *all[0].accept, balancing(all[0].service(), nil)
	w.Proxy[0].AcceptTLS, w.TLS.Config = nil, nil // functions cannot be compared
	if err := all[0].of.admit(mesh.Client{Service: "web", Namespace: "default"}); err != nil {
		w.Denied = err.Error()
	}
	return w
}

// Every argument of an expose block is used. Local is for the registrar, see servicesToExpose.
func TestEveryArgumentOfAnExposedServiceIsUsed(t *testing.T) {
	before := wireExposed(config.Expose{Name: "hello"})
	if !reflect.DeepEqual(wireExposed(config.Expose{Name: "hello"}), before) {
		t.Fatal("two equal blocks differ")
	}
	fields := reflect.TypeFor[config.Expose]()
	for i := range fields.NumField() {
		s := config.Expose{Name: "hello"}
		field := reflect.ValueOf(&s).Elem().Field(i)
		switch value := field.Addr().Interface().(type) {
		case *[]string:
			*value = []string{"other"}
		case *[]netip.Prefix:
			*value = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		case *netip.AddrPort, *hcl.Range:
			continue
		default:
			if !change(field) {
				t.Errorf("this test does not know how to change %s", fields.Field(i).Name)
			}
		}
		if reflect.DeepEqual(wireExposed(s), before) {
			t.Errorf("%s is not used", fields.Field(i).Name)
		}
	}
}
