package mesh

import (
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// configure writes a configuration entry.
func configure(t testing.TB, c *api.Client, entry api.ConfigEntry) {
	t.Helper()
	if _, _, err := c.ConfigEntries().Set(entry, nil); err != nil {
		t.Fatal(err)
	}
}

// intend replaces the intentions whose destination is a service, or "*".
func intend(t testing.TB, c *api.Client, destination string, sources ...*api.SourceIntention) {
	t.Helper()
	if len(sources) == 0 {
		if _, err := c.ConfigEntries().Delete(api.ServiceIntentions, destination, nil); err != nil {
			t.Fatal(err)
		}
		return
	}
	configure(t, c, &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: destination, Sources: sources})
}

// speaksHTTP lets a service have intentions about requests.
func speaksHTTP(t testing.TB, c *api.Client, service string) {
	t.Helper()
	configure(t, c, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: service, Protocol: "http"})
}

// intentionFrom returns an intention with this source: allow, deny, or l7.
func intentionFrom(name, action string) *api.SourceIntention {
	s := &api.SourceIntention{Name: name, Action: api.IntentionAction(action)}
	if action == "l7" {
		s.Action = ""
		s.Permissions = []*api.IntentionPermission{{Action: api.IntentionActionAllow,
			HTTP: &api.IntentionHTTPPermission{PathPrefix: "/"}}}
	}
	return s
}

func mustClient(t testing.TB, a *testconsul.Agent) *api.Client {
	t.Helper()
	c, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitDecision waits until Lictor decides so about a client called name.
func awaitDecision(t testing.TB, i *Intentions, name string, allowed bool, by DecidedBy) {
	t.Helper()
	testproc.Await(t, fmt.Sprintf("the decision %v about %s by %s", allowed, name, by), func() bool {
		d := i.Decide(clientNamed(name))
		return d.Allowed == allowed && d.By == by
	})
}

// The default policy is that of the agent, whatever sets it.
func TestRealDefaultPolicies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		acl     bool // with the default policy deny
		setting string
		allowed bool
	}{{false, "", true}, {false, "deny", false}, {true, "", false}, {true, "allow", true}} {
		t.Run(fmt.Sprintf("acl %v %s", tt.acl, tt.setting), func(t *testing.T) {
			t.Parallel()
			hcl := signs("0")
			if tt.setting != "" {
				hcl += fmt.Sprintf("default_intention_policy = %q\n", tt.setting)
			}
			a := startAgent(t, testconsul.Options{ACL: tt.acl, HCL: hcl})
			c := mustClient(t, a)
			token := ""
			if tt.acl {
				token = tokenFor(t, c, `service "billing" { policy = "write" }`)
			}
			s := newRealStore(t, consul.Options{Address: a.HTTP, Token: token}, nil)
			i := s.Intentions("billing", !tt.allowed)
			run(t, s)
			awaitDecision(t, i, "web", tt.allowed, ByDefaultPolicy)
			exception := map[bool]string{true: "deny", false: "allow"}[tt.allowed]
			intend(t, c, "billing", intentionFrom("web", exception))
			awaitDecision(t, i, "web", !tt.allowed, ByIntention)
			awaitDecision(t, i, "front", tt.allowed, ByDefaultPolicy)
			intend(t, c, "billing")
			awaitDecision(t, i, "web", tt.allowed, ByDefaultPolicy)
		})
	}
}

// tokenFor returns a token with these rights.
func tokenFor(t testing.TB, c *api.Client, rules string) string {
	t.Helper()
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.SecretID
}

// Changes, precedence and intentions about requests count as soon as Consul tells them. Without Consul, what it said
// last counts. A client with a certificate of the mesh is served or refused accordingly.
func TestRealIntentions(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{HCL: signs("0") + "default_intention_policy = \"deny\"\n"})
	c := mustClient(t, a)
	s := newRealStore(t, consul.Options{Address: a.HTTP}, nil)
	web, own, i := s.Use("web", "billing"), s.Use("billing", "billing"), s.Intentions("billing", false)
	run(t, s)
	awaitReady(t, web)
	awaitReady(t, own)
	server := own.Server(ServerOptions{Admit: func(c Client) error {
		if d := i.Decide(c); !d.Allowed {
			return fmt.Errorf("%v", d)
		}
		return nil
	}})
	address := serveEach(t, func(c *tls.Conn) { _ = c.Handshake() }, server.Config)
	served := func(want bool) {
		t.Helper()
		if _, err := connect(address, mustConfig(t, web, address)); (err == nil) != want {
			t.Errorf("served %v, %v, want %v", err == nil, err, want)
		}
	}
	awaitDecision(t, i, "web", false, ByDefaultPolicy)
	served(false)
	intend(t, c, "*", intentionFrom("web", "allow"))
	awaitDecision(t, i, "web", true, ByIntention)
	served(true)
	intend(t, c, "billing", intentionFrom("*", "deny"))
	awaitDecision(t, i, "web", false, ByIntention)
	intend(t, c, "billing", intentionFrom("*", "deny"), intentionFrom("web", "allow"))
	awaitDecision(t, i, "web", true, ByIntention)
	awaitDecision(t, i, "front", false, ByIntention)
	speaksHTTP(t, c, "billing")
	intend(t, c, "billing", intentionFrom("*", "allow"), intentionFrom("web", "l7"))
	awaitDecision(t, i, "front", true, ByIntention)
	if d := i.Decide(clientNamed("web")); d.Allowed || !d.L7 || d.Precedence != 9 {
		t.Errorf("got %+v", d)
	}
	served(false)

	a.Kill()
	testproc.Await(t, "the error", func() bool { return s.State().Intentions[0].Err != nil })
	awaitDecision(t, i, "front", true, ByIntention)
	if err := a.Restart(t.Context()); err != nil { // without intentions: a dev agent forgets everything
		t.Fatal(err)
	}
	awaitDecision(t, i, "front", false, ByDefaultPolicy)
}

// Without the right to read intentions, what is known stays in force.
func TestRealIntentionRights(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{ACL: true})
	c := mustClient(t, a)
	const mayRead = `service "billing" { policy = "read" }`
	token := tokenFor(t, c, mayRead)
	s := newRealStore(t, consul.Options{Address: a.HTTP, Token: token}, nil)
	i, other := s.Intentions("billing", false), s.Intentions("stock", false)
	intend(t, c, "billing", intentionFrom("web", "allow"))
	run(t, s)
	awaitDecision(t, i, "web", true, ByIntention)
	awaitDecision(t, i, "front", false, ByDefaultPolicy)
	testproc.Await(t, "the error about the other service", func() bool { return s.State().Intentions[1].Err != nil })
	awaitDecision(t, other, "web", false, ByNothing)
	policies, _, err := c.ACL().PolicyList(nil)
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(policies, func(p *api.ACLPolicyListEntry) bool { return p.Name == "lictor" })
	write := func(rules string) {
		t.Helper()
		changed := &api.ACLPolicy{ID: policies[n].ID, Name: "lictor", Rules: rules}
		if _, _, err := c.ACL().PolicyUpdate(changed, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(`node_prefix "" { policy = "read" }`)
	intend(t, c, "billing", intentionFrom("web", "deny")) // answers the question that was asked with the right
	testproc.Await(t, "the error", func() bool { return s.State().Intentions[0].Err != nil })
	intend(t, c, "billing", intentionFrom("web", "allow"))
	awaitDecision(t, i, "web", false, ByIntention)
	write(mayRead)
	awaitDecision(t, i, "web", true, ByIntention)
}

// BenchmarkRealChanges measures how long it takes from the begin of the request that changes an intention until Lictor
// decides by it: with a blocking question for each destination, and with turns.
func BenchmarkRealChanges(b *testing.B) {
	for _, tt := range []struct {
		scheme       string
		destinations int
	}{{"http", 1}, {"http", ruleTurns}, {"http", 2 * ruleTurns}, {"https", 1}, {"https", 100}} {
		b.Run(fmt.Sprintf("%s_%d", tt.scheme, tt.destinations), func(b *testing.B) {
			a := startAgent(b, testconsul.Options{TLS: true})
			c, changed := mustClient(b, a), make(chan string, 1000)
			o := consul.Options{Address: a.HTTP, TLS: consul.TLSOptions{CAFile: a.CAFile}}
			if tt.scheme == "https" {
				o.Address = "https://" + a.HTTPS
			}
			client, err := consul.New(o)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(client.CloseIdle)
			s := NewStore(Options{Consul: client, IntentionsChanged: func(of string) { changed <- of }})
			for n := range tt.destinations {
				s.Intentions(fmt.Sprint("service-", n), false)
			}
			run(b, s)
			for range tt.destinations {
				testproc.Receive(b, "the first intentions", changed)
			}
			var all []time.Duration
			for b.Loop() {
				destination := fmt.Sprint("service-", len(all)%tt.destinations)
				action := []string{"allow", "deny"}[len(all)/tt.destinations%2]
				begun := time.Now()
				intend(b, c, destination, intentionFrom("web", action))
				testproc.Receive(b, "a change", changed)
				all = append(all, time.Since(begun))
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)*99/100].Seconds()*1000, "ms/p99")
			b.ReportMetric(all[len(all)-1].Seconds()*1000, "ms/max")
		})
	}
}
