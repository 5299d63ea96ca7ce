package discovery

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// When a token loses some rights, instances vanish silently. The header that says so counts only if it is new.
func TestJudgeOfRights(t *testing.T) {
	const unclear, gone = "?instances have vanished", "?set is sharply smaller"
	type step struct {
		asked    question
		says     string
		filtered bool
		want     string // names in the set; a text that begins with ? is the doubt instead
		hidden   string // hidden names; if there are some, the token may have lost a right
		record   string // names on the node, if the token may see all of the node; "-": the node does not exist
	}
	begin := step{question{}, "a b c d", false, "abcd", "", ""}
	first := step{at(7), "a b c", false, unclear, "", ""}
	lost := step{leader, "a b c", true, "abcd", "d", ""}
	half := step{leader, "a b", true, "abcd", "cd", ""}
	more := step{question{}, "a b e", true, "abcde", "cd", ""}
	most := step{leader, "a", true, "abcd", "bcd", ""}
	for name, steps := range map[string][]step{
		"a right is lost":            {begin, first, lost},
		"an instance is gone":        {begin, first, {leader, "a b c", false, "abc", "", ""}},
		"most are, by the rights":    {begin, first, most},
		"critical is no question":    {begin, {at(7), "a b c d?", false, "abc", "", ""}},
		"a new one is none":          {begin, {at(7), "a b c d e", false, "abcde", "", ""}},
		"an address is taken over":   {begin, {at(7), "a b c x=d", false, "abcx", "", ""}},
		"at the start nothing is":    {{question{}, "a b", true, "ab", "", ""}},
		"the right is back":          {begin, first, lost, begin},
		"a narrow token hears it":    {{question{}, "a b", true, "ab", "", ""}, {at(7), "a", false, "a", "", ""}},
		"a narrow token, again":      {{question{}, "a b", true, "ab", "", ""}, {question{}, "a", true, "a", "", ""}},
		"then a new one":             {begin, half, more},
		"then it leaves":             {begin, half, more, {question{}, "a b e?", true, "abcd", "cd", ""}},
		"then one is critical":       {begin, half, {question{}, "a b?", true, "acd", "cd", ""}},
		"then one is hidden too":     {begin, half, {question{}, "a", true, "abcd", "bcd", ""}},
		"then one is back":           {begin, half, {question{}, "a b d", true, "abcd", "c", ""}},
		"then an address is taken":   {begin, half, {question{}, "a b x=c", true, "abdx", "d", ""}},
		"then as many new ones":      {begin, half, {question{}, "a b e f", true, "abcdef", "cd", ""}},
		"the node has it no more":    {begin, {leader, "a b c", true, "abc", "", "a b c"}},
		"the node has it still":      {begin, {leader, "a b c", true, "abc", "", "a b c d"}},
		"the node is gone":           {begin, {leader, "a b c", true, "abc", "", "-"}},
		"the node has most no more":  {begin, {leader, "a", true, "abcd", "", "a"}},
		"it is not confirmed yet":    {begin, {question{}, "a", true, gone, "", "a"}},
		"the node can be seen later": {begin, half, {leader, "a b", true, "ab", "", "a b"}},
		"then they are really gone":  {begin, half, {question{}, "a b", false, "ab", "", ""}},
		"then most really are":       {begin, most, {question{}, "a", false, gone, "", ""}},
		"critical ones with it": {
			begin, {leader, "a b? c?", true, "ad", "d", ""}, {leader, "a? b? c?", true, "d", "d", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var b belief
			for i, s := range steps {
				v := b.judge(Guard{}.withDefaults(), evidence{
					now: time.Now(), asked: s.asked, index: 7, denies: true, filtered: s.filtered, kind: narrowQuery,
					in: said(strings.Fields(s.says)...), records: recordsOf(s.record),
				})
				if doubt, doubted := strings.CutPrefix(s.want, "?"); doubted {
					if v.doubt != doubt {
						t.Fatalf("step %d: doubt %q, want %q", i, v.doubt, doubt)
					}
					continue
				}
				if v.doubt != "" || v.denied != (s.hidden != "") || v.denied && v.next.index != 0 {
					t.Fatalf("step %d: doubt %q, denied %v, next %+v", i, v.doubt, v.denied, v.next)
				}
				b = v.belief
				if got := namesOf(b.set); got != s.want || hiddenOf(b) != s.hidden {
					t.Fatalf("step %d: got %q, hidden %q, want %q, %q", i, got, hiddenOf(b), s.want, s.hidden)
				}
			}
		})
	}
}

// recordsOf returns the record of the node n with the given instances. "-" means that the node does not exist, and ""
// that its record is unknown.
func recordsOf(names string) map[string]record {
	switch names {
	case "":
		return nil
	case "-":
		return map[string]record{"n": {}}
	}
	r := record{known: true, services: map[string]lb.Place{}}
	for _, one := range said(strings.Fields(names)...).all {
		_, id := splitID(one.ID)
		r.services[id] = one.Endpoint.Place()
	}
	return map[string]record{"n": r}
}

// hiddenOf returns the names of the hidden endpoints.
func hiddenOf(b belief) string {
	hidden := slices.DeleteFunc(slices.Clone(b.set), func(e lb.Endpoint) bool { return !b.hidden[e.ID] })
	return namesOf(hidden)
}

// While the token may have lost a right, new endpoints are used, and endpoints that the token may no longer see stay.
// The log says so once.
func TestTokenThatLosesARight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80", "b 81", "e 84"), denying(ok(21, "a 80")),
			partly(ok(21, "a 80")), partly(ok(21, "a 80")), partly(ok(22, "a 80", "c 82"))}}}
		f.always = partly(ok(22, "a 80", "c 82"))
		r := start(t, f, ConsulOptions{})
		time.Sleep(time.Hour)
		r.want(t, webAB+" n/e=10.0.0.1:84", webAB+" n/c=10.0.0.1:82 n/e=10.0.0.1:84")
		s := r.status()
		if !strings.Contains(s.Error, "the token may see less than before") || s.Endpoints != 4 || s.Held != 0 {
			t.Errorf("status %+v", s)
		}
		x, _ := r.consul.Explain("web")
		if one := x.Tiers[0].Instances[1]; one.ID != "n/b" || !strings.Contains(one.Detail, "the token may have lost") {
			t.Errorf("explained %+v", x.Tiers[0].Instances)
		}
		f.mu.Lock()
		f.always, f.script = nil, map[string][]reply{"web": {ok(23, "a 80", "b 81", "c 82")}}
		f.mu.Unlock()
		time.Sleep(30 * time.Second) // more than a pause, and less than a query's deadline
		r.want(t, webAB+" n/e=10.0.0.1:84", webAB+" n/c=10.0.0.1:82 n/e=10.0.0.1:84", webAB+" n/c=10.0.0.1:82")
		r.log.wantOnce(t, "consul denies access", "endpoints that it hides stay in use", "consul permits access again")
		if s := r.status(); s.Error != "" || strings.Contains(r.log.String(), "at once") {
			t.Errorf("status %+v, log:\n%s", s, r.log)
		}
		r.stop()
	})
}

// denying returns r with the header that says that a token needs rights.
func denying(r reply) reply {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := r(req)
		if err == nil {
			resp.Header.Set("X-Consul-Default-Acl-Policy", "deny")
		}
		return resp, err
	}
}

// If the token may no longer see one of several instances, no instance goes out of service. The log and the status name
// the right that the token may lack. Lictor follows the visible instances, and all of them when the token has the right
// again.
func TestRealConsulTokenThatLosesAPartOfItsRights(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{ACL: true})
	host := func(name string) {
		_, err := a.api.Catalog().Register(&api.CatalogRegistration{Node: name, Address: "10.0.0.1",
			Service: &api.AgentService{Service: "web", Port: 80 + len(name)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	host("a")
	host("bb")
	host("ccc")
	all := `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, _, err := a.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: all}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := a.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, Token: token.SecretID, Wait: 2 * time.Second,
		Resync: 5 * time.Second, Watches: []Watch{{Service: "web"}}})
	three := "web: a/web=10.0.0.1:81 bb/web=10.0.0.1:82 ccc/web=10.0.0.1:83"
	r.wantLast(t, three)
	rules := func(text string) {
		policy.Rules = text
		if policy, _, err = a.api.ACL().PolicyUpdate(policy, nil); err != nil {
			t.Fatal(err)
		}
	}
	rules(all + ` node "bb" { policy = "deny" }`)
	t.Cleanup(func() { t.Logf("%s%+v", r.log, r.status()) })
	testproc.Await(t, "denial", func() bool { return strings.Contains(r.log.String(), "consul denies access") })
	r.log.wantOnce(t, "the token may see less than before: perhaps it lacks node:read for the nodes")
	r.want(t, three)
	seen, err := r.consul.Look(t.Context(), Query{Service: "web"})
	var hidden *HiddenError
	if !errors.As(err, &hidden) || !strings.Contains(err.Error(), "node:read for the nodes") || len(seen) != 2 {
		t.Errorf("looked: %v, %v", seen, err)
	}
	if s := r.status(); !strings.Contains(s.Error, "node:read") {
		t.Errorf("status %+v", s)
	}
	host("dddd")
	r.wantLast(t, "web: a/web=10.0.0.1:81 bb/web=10.0.0.1:82 ccc/web=10.0.0.1:83 dddd/web=10.0.0.1:84")
	remove := func(node string) {
		if _, err := a.api.Catalog().Deregister(&api.CatalogDeregistration{Node: node}, nil); err != nil {
			t.Fatal(err)
		}
	}
	remove("ccc")
	r.wantLast(t, "web: a/web=10.0.0.1:81 bb/web=10.0.0.1:82 dddd/web=10.0.0.1:84")
	rules(all)
	testproc.Await(t, "end of the denial", func() bool {
		return strings.Contains(r.log.String(), "consul permits access again")
	})
	remove("bb")
	r.wantLast(t, "web: a/web=10.0.0.1:81 dddd/web=10.0.0.1:84")
}

// Consul decides which service a prepared query is for, so no right for a service is named.
func TestServiceAsked(t *testing.T) {
	for q, want := range map[*Query]string{
		{Service: "web"}:                   "web",
		{Service: "web", Prepared: "near"}: "",
	} {
		if got := q.normalize("").serviceAsked(); got != want {
			t.Errorf("%v: got %q, want %q", q, got, want)
		}
	}
}
