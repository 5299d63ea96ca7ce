package discovery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// configure writes configuration entries.
func (a *agent) configure(entries ...api.ConfigEntry) {
	a.t.Helper()
	for _, e := range entries {
		if _, _, err := a.api.ConfigEntries().Set(e, nil); err != nil {
			a.t.Fatal(err)
		}
	}
}

// sidecar registers an instance of a service and its sidecar. The sidecar's ID is that of the instance and "-proxy".
func (a *agent) sidecar(service, id string, port int, version string) {
	a.t.Helper()
	meta := map[string]string{"version": version}
	a.register(&api.AgentServiceRegistration{Name: service, ID: id, Port: port, Meta: meta})
	a.register(&api.AgentServiceRegistration{Kind: api.ServiceKindConnectProxy, Name: service + "-proxy",
		ID: id + "-proxy", Port: port + 10000, Meta: meta,
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, DestinationServiceID: id}})
}

// tiersText returns the tiers of web with their endpoints.
func (r *rig) tiersText() string {
	x, _ := r.consul.Explain("web")
	var all []string
	for _, t := range x.Tiers {
		text := t.Name + ":"
		for _, one := range t.Instances {
			text += " " + strings.TrimPrefix(named(one.Endpoint), "n/") + string(one.Out)
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func (r *rig) awaitTiers(t *testing.T, want string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("got %q\n%s", r.tiersText(), r.log)
		}
	}()
	testproc.Await(t, want, func() bool { return r.tiersText() == want })
}

func (a *agent) trustDomain() string {
	a.t.Helper()
	roots, _, err := a.api.Agent().ConnectCARoots(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return roots.TrustDomain
}

// The chain of a service of the mesh is followed through redirects, subsets and failover, whatever its instances are.
func TestRealConsulMesh(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	dir := t.TempDir()
	o := ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: []Watch{
		{Service: "web", Query: Query{Mesh: true}, Chain: true, Guard: Guard{Hold: -1}}}}
	r := followNew(t, o)
	td := a.trustDomain()
	sni := func(name string) string { return name + ".default.dc1.internal." + td }
	const web, db = "/ns/default/dc/dc1/svc/web ", "/ns/default/dc/dc1/svc/db "
	r.awaitTiers(t, "web:")
	a.sidecar("web", "w1", 8001, "1")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "w2", Port: 8002, Meta: map[string]string{"version": "2"},
		Connect: &api.AgentServiceConnect{Native: true}})
	r.awaitTiers(t, "web: w1-proxy "+web+sni("web")+" w2 "+web+sni("web"))
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "bare", Port: 8003})
	if out, err := r.consul.Excluded(t.Context(), "web"); err != nil || len(out) != 1 || out[0].ID != "n/bare" ||
		out[0].Out != OutMesh {
		t.Errorf("outside the mesh: got %+v, %v", out, err)
	}

	a.register(&api.AgentServiceRegistration{Kind: api.ServiceKindTerminatingGateway, Name: "gw", ID: "gw", Port: 8443})
	a.configure(&api.TerminatingGatewayConfigEntry{Kind: api.TerminatingGateway, Name: "gw",
		Services: []api.LinkedService{{Name: "db"}}})
	a.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", DefaultSubset: "v1",
		Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: "Service.Meta.version == 1"},
			"v2": {Filter: "Service.Meta.version == 2", OnlyPassing: true}},
		Failover: map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{
			{ServiceSubset: "v2"}, {Service: "db"}}}}})
	tiers := "v1.web: w1-proxy " + web + sni("v1.web") + "; v2.web: w2 " + web + sni("v2.web") +
		"; db: gw " + db + sni("db")
	r.awaitTiers(t, tiers)
	r.wantLast(t, "web: n/w1-proxy=127.0.0.1:18001")
	if err := a.api.Agent().ServiceDeregister("w1-proxy"); err != nil {
		t.Fatal(err)
	}
	r.wantLast(t, "web: n/w2=127.0.0.1:8002")
	if err := a.api.Agent().EnableServiceMaintenance("w2", ""); err != nil {
		t.Fatal(err)
	}
	r.wantLast(t, "web: n/gw=127.0.0.1:8443")

	a.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Redirect: &api.ServiceResolverRedirect{Service: "db"}})
	r.awaitTiers(t, "db: gw "+db+sni("db"))
	r.stop()

	a.Kill()
	later := followNew(t, o)
	if got := later.consul.Saved(); len(got) != 1 || len(got[0].Endpoints) != 1 ||
		named(got[0].Endpoints[0]) != "n/gw "+db+sni("db") {
		t.Errorf("saved %+v", got)
	}
}

// A chain that needs HTTP, a peer or mesh gateways is an error, and the service keeps its tiers.
func TestRealConsulMeshChainsThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	a.configure(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http"},
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "db", Protocol: "http"})
	a.sidecar("web", "w1", 8001, "1")
	r := followNew(t, ConsulOptions{Address: a.HTTP, Watches: []Watch{
		{Service: "web", Query: Query{Mesh: true}, Chain: true, Guard: Guard{Hold: -1}}}})
	tiers := "web: w1-proxy /ns/default/dc/dc1/svc/web web.default.dc1.internal." + a.trustDomain()
	r.awaitTiers(t, tiers) // the protocol alone does not matter
	says := func(want string) {
		t.Helper()
		var got string
		testproc.Await(t, fmt.Sprintf("an error with %q", want), func() bool {
			got = r.chainError(t, "web")
			return strings.Contains(got, want) || want == "" && got == ""
		})
		if text := r.tiersText(); text != tiers {
			t.Errorf("with the error %q, the tiers are %q, want %q", got, text, tiers)
		}
	}
	splitter := &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "web",
		Splits: []api.ServiceSplit{{Weight: 50}, {Weight: 50, Service: "db"}}}
	a.configure(splitter)
	says("begins with a splitter, which needs HTTP")
	if _, err := a.api.ConfigEntries().Delete(api.ServiceSplitter, "web", nil); err != nil {
		t.Fatal(err)
	}
	says("")
	a.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Redirect: &api.ServiceResolverRedirect{Service: "db", Peer: "east"}})
	says(`in the cluster peering "east"`)
	a.configure(&api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global",
		MeshGateway: api.MeshGatewayConfig{Mode: api.MeshGatewayModeLocal}})
	a.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Redirect: &api.ServiceResolverRedirect{Service: "web", Datacenter: "dc2"}})
	says("through mesh gateways (mode local)")
	watch := Watch{Service: "web", Query: Query{Mesh: true}, Chain: true}
	_, _, err := r.consul.LookChain(t.Context(), watch)
	if err == nil || !strings.Contains(err.Error(), "mesh gateways") {
		t.Errorf("looked at the chain: %v", err)
	}
	testproc.Await(t, "log line", func() bool {
		return strings.Contains(r.log.String(), "lictor cannot follow a discovery chain")
	})
	a.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc2"}}}})
	testproc.Await(t, "a target that is left out", func() bool {
		uses := r.consul.Tiers("web")
		return len(uses) == 2 && uses[0].Active && strings.Contains(uses[1].Detail, "left out: it is reached through")
	})
	says("")
}

// Consul gives chains of all services a time to connect, the same whether a resolver sets it or nobody does. So a chain
// does not say whether somebody wants another one than the connect_timeout of the service.
func TestRealConsulSetsConnectTimeoutsOfAllChains(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{})
	subset := map[string]api.ServiceResolverSubset{"one": {Filter: `Service.Meta.v == "1"`}}
	a.configure(
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "silent", Subsets: subset},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "wanted", ConnectTimeout: 5 * time.Second})
	for _, name := range []string{"nothing", "silent", "wanted"} {
		answer, _, err := a.api.DiscoveryChain().Get(name, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		start := answer.Chain.Nodes[answer.Chain.StartNode]
		if start.Resolver == nil || start.Resolver.ConnectTimeout != 5*time.Second {
			t.Errorf("%s: got %+v", name, start.Resolver)
		}
	}
}

// A token needs service:read of the service for its chain, and of its sidecars for their addresses.
func TestRealConsulMeshWithAToken(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{ACL: true})
	a.sidecar("web", "w1", 8001, "1")
	policy := &api.ACLPolicy{Name: "lictor",
		Rules: `service "web" { policy = "read" } node_prefix "" { policy = "read" }`}
	policy, _, err := a.api.ACL().PolicyCreate(policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := a.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, Token: token.SecretID, Wait: 2 * time.Second, Watches: []Watch{
		{Service: "web", Query: Query{Mesh: true}, Chain: true}}})
	testproc.Await(t, "a denial that names the right", func() bool {
		return strings.Contains(r.log.String(), `service:read for the names of the sidecars`)
	})
	policy.Rules = `service_prefix "web" { policy = "read" } node_prefix "" { policy = "read" }`
	if _, _, err := a.api.ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	r.wantLast(t, "web: n/w1-proxy=127.0.0.1:18001")
	policy.Rules = `service_prefix "w" { policy = "deny" } node_prefix "" { policy = "read" }`
	if _, _, err := a.api.ACL().PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "the chain is denied", func() bool {
		return strings.Contains(r.chainError(t, "web"), "Permission denied")
	})
	r.wantLast(t, "web: n/w1-proxy=127.0.0.1:18001")
}

// A service fails over to a datacenter that shares the trust domain. Its instances there have the identity of that
// datacenter, and the address for other datacenters.
func TestRealConsulMeshOfTwoDatacenters(t *testing.T) {
	t.Parallel()
	const primary = `primary_datacenter = "dc1"` + "\n"
	one := startAgentWith(t, testconsul.Options{WAN: true, HCL: primary})
	two := startAgentWith(t, testconsul.Options{Datacenter: "dc2", JoinWAN: one.WAN, HCL: primary})
	testproc.Await(t, "two datacenters", func() bool {
		all, err := one.api.Catalog().Datacenters()
		return err == nil && len(all) == 2
	})
	two.register(&api.AgentServiceRegistration{Name: "web", ID: "w", Port: 8001,
		Connect:         &api.AgentServiceConnect{Native: true},
		TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 81}}})
	one.configure(&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web",
		Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc2"}}}})
	r := followNew(t, ConsulOptions{Address: one.HTTP, Watches: []Watch{
		{Service: "web", Query: Query{Mesh: true}, Chain: true, Guard: Guard{Hold: -1}}}})
	r.awaitTiers(t, "web:; web in datacenter dc2: w /ns/default/dc/dc2/svc/web web.default.dc2.internal."+
		one.trustDomain())
	r.wantLast(t, "web: n/w=192.0.2.1:81")
}
