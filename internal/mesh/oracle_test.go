package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// setsVar is the environment variable that says how many random sets of intentions are compared for each default
// policy. seedVar is that of another seed than the usual one:
//
//	LICTOR_MESH_SETS=100 go test -count 1 -run TestDecidesAsConsulDoes -v ./internal/mesh
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

// An oracle compares the decisions of Lictor with those of a Consul agent, and with what the agent tells Envoy.
type oracle struct {
	t      *testing.T
	agent  *testconsul.Agent
	api    *api.Client
	random *rand.Rand
	store  *Store
	domain string
	told   func() *envoyRules // about the clients of billing

	known    map[string]*Intentions // by destination
	compared map[string]int         // by what decided
	asked    int                    // calls of compare
}

// The destinations: billing speaks TCP, and stock HTTP, so it may have intentions about requests.
var oracleDestinations = []string{"billing", "stock"}

// For random intentions and both default policies, Lictor decides as the agent's own answer about a client, by the same
// intention, and as an Envoy does that is told the rules of the agent, with the exception of envoyDiffers.
func TestDecidesAsConsulDoes(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"allow", "deny"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, policy)
			for set := range numberIn(t, setsVar, 20) {
				o.write()
				if err := o.await(o.isKnown); err != nil {
					t.Fatalf("set %d: %v", set, err)
				}
				if err := o.await(o.compare); err != nil {
					t.Fatalf("set %d: %v\n%s", set, err, o.describe())
				}
			}
			t.Logf("compared decisions: %v", o.compared)
		})
	}
}

func newOracle(t *testing.T, policy string) *oracle {
	t.Helper()
	a := startAgent(t, testconsul.Options{GRPC: true,
		HCL: signs("0") + fmt.Sprintf("default_intention_policy = %q\n", policy)})
	o := &oracle{t: t, agent: a, api: mustClient(t, a), compared: map[string]int{}, known: map[string]*Intentions{},
		random: rand.New(rand.NewPCG(uint64(numberIn(t, seedVar, 1)), 0))}
	speaksHTTP(t, o.api, "stock")
	for _, s := range []*api.AgentServiceRegistration{
		{Name: "billing", Port: 1000},
		{Kind: api.ServiceKindConnectProxy, Name: "billing-sidecar", ID: "billing-sidecar", Port: 1001,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "billing", LocalServicePort: 1000}},
	} {
		if err := o.api.Agent().ServiceRegister(s); err != nil {
			t.Fatal(err)
		}
	}
	o.told = startEnvoy(t, a)
	o.store = newRealStore(t, consul.Options{Address: a.HTTP}, nil)
	for _, d := range oracleDestinations {
		o.known[d] = o.store.Intentions(d, policy != "allow")
	}
	run(t, o.store)
	testproc.Await(t, "the authorities", func() bool {
		o.domain = o.store.State().TrustDomain
		return o.domain != ""
	})
	return o
}

// write replaces the intentions by random ones.
func (o *oracle) write() {
	for _, destination := range append([]string{"*"}, oracleDestinations...) {
		actions := []string{"allow", "deny"}
		if destination == "stock" {
			actions = append(actions, "l7")
		}
		var sources []*api.SourceIntention
		for n, name := range []string{"web", "front", "Web", "billing", "*"} {
			if o.random.IntN(2+n/2) == 0 {
				sources = append(sources, intentionFrom(name, actions[o.random.IntN(len(actions))]))
			}
			if o.random.IntN(4) == 0 && destination != "*" { // through a peering
				s := intentionFrom(name, actions[o.random.IntN(2)])
				s.Peer = "east"
				sources = append(sources, s)
			}
		}
		intend(o.t, o.api, destination, sources...)
	}
}

func (o *oracle) await(check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(o.t.Context(), testproc.Patience)
	defer cancel()
	return testproc.Poll(ctx, func() error { return check(ctx) })
}

// isKnown returns an error until Lictor has all intentions that Consul has.
func (o *oracle) isKnown(context.Context) error {
	for _, state := range o.store.State().Intentions {
		match := &api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{state.Destination}}
		want, _, err := o.api.Connect().IntentionMatch(match, nil)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(state.Intentions, want[state.Destination], func(i Intention, w *api.Intention) bool {
			return i.Source == w.SourceName && i.SourcePeer == w.SourcePeer && i.Destination == w.DestinationName &&
				i.Precedence == w.Precedence && i.L7 == (len(w.Permissions) > 0) &&
				i.Allow == (w.Action == api.IntentionActionAllow)
		}) {
			return fmt.Errorf("lictor has %+v of %v", state, want[state.Destination])
		}
	}
	return nil
}

// compare returns an error if a decision differs.
//
// The agent decides by intentions that it has cached for a token. It stops to follow them when it has answered the
// request that it began with, and then decides by old ones. So each comparison has a token of its own, which an agent
// without ACLs accepts.
func (o *oracle) compare(ctx context.Context) error {
	rules := o.told()
	if rules == nil {
		return errors.New("the agent tells Envoy nothing")
	}
	o.asked++
	client, err := consul.New(consul.Options{Address: o.agent.HTTP, Token: fmt.Sprint("question-", o.asked)})
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	compared := map[string]int{}
	for _, destination := range oracleDestinations {
		for _, path := range []string{"dc/dc1/svc/web", "dc/dc1/svc/front", "dc/dc1/svc/Web", "dc/dc2/svc/web",
			"dc/dc1/svc/billing", "dc/dc1/svc/stranger", "dc/dc1/svc/web2"} {
			uri := "spiffe://" + o.domain + "/ns/default/" + path
			got := o.known[destination].Decide(clientOf(o.t, uri))
			allowed, reason, err := authorize(ctx, client, uri, destination)
			if err != nil {
				return err
			}
			if got.Allowed != allowed || !isReason(reason, got) {
				return fmt.Errorf("%s -> %s: lictor decides %v, and the agent %v: %s", uri, destination, got, allowed,
					reason)
			}
			compared[string(got.By)]++
			if destination != "billing" {
				continue
			}
			differs := o.envoyDiffers(got, clientOf(o.t, uri).Service)
			if envoy := rules.allows(uri); envoy != (got.Allowed != differs) {
				return fmt.Errorf("%s -> %s: lictor decides %v, and Envoy %v: %+v", uri, destination, got, envoy, rules)
			}
			compared["envoy"]++
			if differs {
				compared["envoy decides otherwise"]++
			}
		}
	}
	for by, n := range compared {
		o.compared[by] += n
	}
	return nil
}

// envoyDiffers reports whether Envoy decides otherwise about a client of billing than Consul's precedence says. Consul
// leaves an intention out of Envoy's rules that says what the default policy says anyway. If that one is about all
// sources, it does not override the intention of one source for all destinations any more.
func (o *oracle) envoyDiffers(d Decision, client string) bool {
	r := o.known["billing"].current.Load()
	if d.By != ByIntention || d.Source != anyName || d.Allowed != r.allow {
		return false
	}
	n := slices.IndexFunc(r.all, func(i Intention) bool { return i.Source == client && i.SourcePeer == "" })
	return n >= 0 && r.all[n].Allow != r.allow
}

// authorize asks the agent whether a client may connect to a service, and why.
func authorize(ctx context.Context, c *consul.Client, uri, service string) (allowed bool, reason string, err error) {
	var answer struct {
		Authorized bool
		Reason     string
	}
	about := map[string]string{"Target": service, "ClientCertURI": uri, "ClientCertSerial": "00"}
	err = c.Call(ctx, http.MethodPost, "/v1/agent/connect/authorize", nil, about, &answer)
	return answer.Authorized, answer.Reason, err
}

// isReason reports whether the agent's reason names the intention that decides for Lictor.
func isReason(reason string, d Decision) bool {
	if d.By == ByDefaultPolicy {
		return reason == "Default intention policy"
	}
	kind := "L4"
	if d.L7 {
		kind = "L7"
	}
	begin := fmt.Sprintf("Matched %s intention: default/%s => default/%s (", kind, d.Source, d.Destination)
	return d.By == ByIntention && strings.HasPrefix(reason, begin) &&
		strings.Contains(reason, fmt.Sprintf("Precedence: %d,", d.Precedence))
}

// describe returns the intentions that Lictor has.
func (o *oracle) describe() string {
	var text strings.Builder
	for _, state := range o.store.State().Intentions {
		for _, i := range state.Intentions {
			fmt.Fprintf(&text, "%+v\n", i)
		}
	}
	return text.String()
}

// clientOf returns the client with this SPIFFE ID.
func clientOf(t *testing.T, uri string) Client {
	t.Helper()
	c, err := ClientOf(parsedCertificate(t, uri))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// envoyRules are the rules about clients that Envoy is told: the JSON of config.rbac.v3.RBAC.
type envoyRules struct {
	Action   string // empty: ALLOW
	Policies map[string]struct{ Principals []envoyPrincipal }
}

// An envoyPrincipal is the JSON of config.rbac.v3.Principal, as far as Consul uses it for connections.
type envoyPrincipal struct {
	Any           bool
	AndIds, OrIds *struct{ Ids []envoyPrincipal }
	NotId         *envoyPrincipal
	Authenticated *struct {
		PrincipalName struct{ SafeRegex struct{ Regex string } }
	}
}

// allows reports whether Envoy serves a client with this ID.
func (r *envoyRules) allows(uri string) bool {
	for _, p := range r.Policies {
		if slices.ContainsFunc(p.Principals, func(p envoyPrincipal) bool { return p.is(uri) }) {
			return r.Action != "DENY"
		}
	}
	return r.Action == "DENY"
}

// is reports whether the principal is the client with this ID.
func (p envoyPrincipal) is(uri string) bool {
	is := func(p envoyPrincipal) bool { return p.is(uri) }
	isNot := func(p envoyPrincipal) bool { return !p.is(uri) }
	switch {
	case p.AndIds != nil:
		return !slices.ContainsFunc(p.AndIds.Ids, isNot)
	case p.OrIds != nil:
		return slices.ContainsFunc(p.OrIds.Ids, is)
	case p.NotId != nil:
		return !p.NotId.is(uri)
	case p.Authenticated != nil:
		return regexp.MustCompile(`^(?:` + p.Authenticated.PrincipalName.SafeRegex.Regex + `)$`).MatchString(uri)
	}
	return p.Any
}

// startEnvoy asks the agent for what it tells the Envoy of billing. The result returns what it said last, or nil.
func startEnvoy(t *testing.T, a *testconsul.Agent) (told func() *envoyRules) {
	t.Helper()
	log := &testproc.Log{}
	cmd := exec.Command(testconsul.Program(t, "envoy"), a.GRPC, "billing-sidecar")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return func() *envoyRules {
		var last struct{ Clients *envoyRules }
		if lines := log.Lines(); len(lines) > 0 {
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
				t.Fatalf("%v: %s", err, log.Tail(5))
			}
		}
		return last.Clients
	}
}
