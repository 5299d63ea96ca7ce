package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// setsVar is the environment variable that says how many random sets of resolvers are compared. seedVar is that of
// another seed than the usual one:
//
//	LICTOR_MESH_SETS=100 go test -count 1 -run TestSameAsEnvoyIsTold -v ./discovery
const (
	setsVar = "LICTOR_MESH_SETS"
	seedVar = "LICTOR_MESH_SEED"
)

// numberIn returns the number in an environment variable, or usual.
func numberIn(t *testing.T, name string, usual int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(usual)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An envoyTarget is what e2e/consul/envoy prints: where Envoy would send connections.
type envoyTarget struct {
	ServerName string   `json:"server_name"`
	Identities []string `json:"identities"`
	Endpoints  []string `json:"endpoints"`
}

// For random sets of resolvers, in two datacenters, Lictor has the same server names, identities, instances and order
// of failover as the agent tells Envoy.
func TestSameAsEnvoyIsTold(t *testing.T) {
	t.Parallel()
	const hcl = "primary_datacenter = \"dc1\"\n"
	near := startAgentWith(t, testconsul.Options{HCL: hcl, GRPC: true, WAN: true})
	far := startAgentWith(t, testconsul.Options{HCL: hcl, Datacenter: "dc2", JoinWAN: near.WAN})
	var watches []Watch
	var upstreams []api.Upstream
	for _, name := range meshNames {
		watches = append(watches, chainOf(name))
		upstreams = append(upstreams, api.Upstream{DestinationName: name, LocalBindPort: 9000 + len(upstreams)})
		registerVersions(near, name)
	}
	for _, name := range meshNames[:2] {
		registerVersions(far, name)
	}
	registerOthers(near)
	near.register(&api.AgentServiceRegistration{Kind: api.ServiceKindConnectProxy, Name: "front-sidecar",
		ID: "front-sidecar", Port: 1000,
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "front", Upstreams: upstreams}})
	told := startEnvoy(t, near)
	r := followNew(t, ConsulOptions{Address: near.HTTP, Watches: watches})
	domain := near.trustDomain()

	seed := numberIn(t, seedVar, 1)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	resolvers, targets := 0, 0
	for set := range numberIn(t, setsVar, 10) {
		resolvers += writeResolvers(near, random)
		ctx, cancel := context.WithTimeout(t.Context(), testproc.Patience)
		err := testproc.Poll(ctx, func() error {
			n, err := r.differFrom(t, told(), domain)
			targets += n
			return err
		})
		cancel()
		if err != nil {
			t.Fatalf("set %d of seed %d: %v", set, seed, err)
		}
	}
	t.Logf("seed %d: %d resolvers, %d targets are the same", seed, resolvers, targets)
}

// differFrom returns an error if something differs from what Envoy is told, or how many targets are the same.
func (r *rig) differFrom(t *testing.T, told map[string][]envoyTarget, domain string) (same int, err error) {
	for _, name := range meshNames {
		got, want := r.asEnvoy(t, name, domain), once(told[name])
		if len(got) == 0 || !slices.EqualFunc(got, want, sameTarget) {
			return 0, fmt.Errorf("%s: got\n%+v\nEnvoy is told\n%+v", name, got, want)
		}
		same += len(got)
	}
	return same, nil
}

// once removes what comes again: a target that a resolver names twice is one tier.
func once(all []envoyTarget) (kept []envoyTarget) {
	for _, one := range all {
		if !slices.ContainsFunc(kept, func(k envoyTarget) bool { return sameTarget(k, one) }) {
			kept = append(kept, one)
		}
	}
	return kept
}

func sameTarget(a, b envoyTarget) bool {
	return a.ServerName == b.ServerName && slices.Equal(a.Identities, b.Identities) &&
		slices.Equal(a.Endpoints, b.Endpoints)
}

// chainOf returns a watch for the discovery chain of a service, whose instances are not held.
func chainOf(service string) Watch {
	return Watch{Service: service, Query: Query{Mesh: true}, Chain: true, Guard: Guard{Hold: -1}}
}

// meshNames are the services that are compared.
var meshNames = []string{"alpha", "beta", "gamma", "delta"}

// registerOthers registers an instance that speaks the mesh's TLS itself, and a terminating gateway.
func registerOthers(a *agent) {
	a.register(&api.AgentServiceRegistration{Name: "gamma", ID: "native", Address: "10.0.1.1", Port: 1001,
		Connect: &api.AgentServiceConnect{Native: true}, Meta: map[string]string{"version": "2"}})
	a.register(&api.AgentServiceRegistration{Kind: api.ServiceKindTerminatingGateway, Name: "gateway", ID: "gateway",
		Address: "10.0.1.2", Port: 1002})
	a.configure(&api.TerminatingGatewayConfigEntry{Kind: api.TerminatingGateway, Name: "gateway",
		Services: []api.LinkedService{{Name: "delta"}}})
}

// registerVersions registers sidecars of a service in versions 1 and 2, with all kinds of health.
func registerVersions(a *agent, service string) {
	for n, status := range []string{"passing", "passing", "warning", "critical", "passing"} {
		id := fmt.Sprintf("%s-%d", service, n)
		a.register(&api.AgentServiceRegistration{Kind: api.ServiceKindConnectProxy, Name: service + "-sidecar", ID: id,
			Address: "10.0.0." + strconv.Itoa(n+1), Port: 20000 + slices.Index(meshNames, service),
			Meta:            map[string]string{"version": strconv.Itoa(1 + n%2)},
			TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "192.0.2." + strconv.Itoa(n+1), Port: 443}},
			Check:           &api.AgentServiceCheck{CheckID: "check:" + id, TTL: "1h", Status: status},
			Proxy:           &api.AgentServiceConnectProxyConfig{DestinationServiceName: service}})
	}
}

// writeResolvers replaces the resolvers of all services by random ones, and returns how many there are. Consul refuses
// some, such as redirects in a circle: these services keep one that has only subsets.
func writeResolvers(a *agent, random *rand.Rand) (written int) {
	a.t.Helper()
	for _, name := range meshNames { // without references, Consul refuses no change
		a.configure(withSubsets(name, random))
	}
	for _, n := range random.Perm(len(meshNames)) {
		var err error
		if name := meshNames[n]; random.IntN(5) == 0 {
			_, err = a.api.ConfigEntries().Delete(api.ServiceResolver, name, nil)
		} else {
			_, _, err = a.api.ConfigEntries().Set(randomResolver(name, random), nil)
		}
		if err == nil {
			written++
		}
	}
	return written
}

// withSubsets returns a resolver that has only subsets, one for each version.
func withSubsets(name string, random *rand.Rand) *api.ServiceResolverConfigEntry {
	r := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: name,
		Subsets: map[string]api.ServiceResolverSubset{}}
	for _, version := range []string{"1", "2"} {
		r.Subsets["v"+version] = api.ServiceResolverSubset{Filter: "Service.Meta.version == " + version,
			OnlyPassing: random.IntN(2) == 0}
	}
	return r
}

// randomResolver returns a resolver of a service, which may name other services, subsets and datacenters.
func randomResolver(name string, random *rand.Rand) *api.ServiceResolverConfigEntry {
	chance := func(n int) bool { return random.IntN(n) == 0 }
	service := func() string { return meshNames[random.IntN(len(meshNames))] }
	subset := func() string { return []string{"", "v1", "v2"}[random.IntN(3)] }
	datacenter := func() string { return []string{"", "", "dc1", "dc2"}[random.IntN(4)] }
	if chance(5) {
		return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: name,
			Redirect: &api.ServiceResolverRedirect{Service: service(), ServiceSubset: subset(),
				Datacenter: datacenter()}}
	}
	r := withSubsets(name, random)
	r.DefaultSubset = subset()
	if chance(3) {
		return r
	}
	failover := api.ServiceResolverFailover{}
	switch random.IntN(3) {
	case 0:
		failover.Service, failover.ServiceSubset = service(), subset()
	case 1:
		failover.Datacenters = [][]string{{"dc2"}, {"dc2", "dc1"}}[random.IntN(2)]
	case 2:
		for range 1 + random.IntN(3) {
			failover.Targets = append(failover.Targets, api.ServiceResolverFailoverTarget{Service: service(),
				ServiceSubset: subset(), Datacenter: datacenter()})
		}
	}
	r.Failover = map[string]api.ServiceResolverFailover{[]string{"*", "v1"}[random.IntN(2)]: failover}
	return r
}

// startEnvoy asks the agent what Envoy would be told to be the sidecar of front. told returns the targets of each
// service as of now.
func startEnvoy(t *testing.T, a *agent) (told func() map[string][]envoyTarget) {
	t.Helper()
	log := &testproc.Log{}
	cmd := exec.Command(testconsul.Program(t, "envoy"), a.GRPC, "front-sidecar")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return func() map[string][]envoyTarget {
		var last struct{ Upstreams map[string][]envoyTarget }
		if lines := log.Lines(); len(lines) > 0 {
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
				t.Fatalf("%v: %s", err, log.Tail(5))
			}
		}
		return last.Upstreams
	}
}

// asEnvoy returns the tiers of a service in the way of e2e/consul/envoy. It returns nil while they change.
func (r *rig) asEnvoy(t *testing.T, service, domain string) (all []envoyTarget) {
	t.Helper()
	x, _ := r.consul.Explain(service)
	tiers, _, err := r.consul.LookChain(t.Context(), chainOf(service))
	if err != nil {
		t.Fatalf("%s: %v", service, err)
	}
	if len(x.Tiers) != len(tiers) {
		return nil
	}
	for n, tier := range tiers {
		path := "/ns/default/dc/" + cmp.Or(tier.Query.Datacenter, "dc1") + "/svc/" + tier.Query.Service
		one := envoyTarget{ServerName: tier.Query.sni, Identities: []string{"spiffe://" + domain + path}}
		for _, i := range x.Tiers[n].Instances {
			if i.Out != "" {
				continue
			}
			if i.Identity != path || i.ServerName != one.ServerName {
				return nil
			}
			one.Endpoints = append(one.Endpoints, i.Address())
		}
		slices.Sort(one.Endpoints)
		all = append(all, one)
	}
	return all
}
