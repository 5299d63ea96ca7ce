package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// clientNamed returns a service of the mesh.
func clientNamed(name string) Client {
	return Client{TrustDomain: domain, Partition: "default", Namespace: "default", Datacenter: "dc1", Service: name}
}

// matchJSON returns Consul's answer about the intentions of billing. Each is such as "web allow 9", or "web l7 9".
func matchJSON(all ...string) string {
	list := make([]map[string]any, 0, len(all))
	for _, text := range all {
		var source, action string
		var precedence int
		if _, err := fmt.Sscan(text, &source, &action, &precedence); err != nil {
			panic(err)
		}
		one := map[string]any{"SourceNS": "default", "SourceName": source, "DestinationNS": "default",
			"DestinationName": "billing", "SourceType": "consul", "Action": action, "Precedence": precedence,
			"Description": "so that it is as long as those of Consul"}
		if action == "l7" {
			one["Permissions"] = []map[string]any{{"Action": "allow", "HTTP": map[string]any{"PathPrefix": "/"}}}
			delete(one, "Action")
		}
		list = append(list, one)
	}
	text, _ := json.Marshal(map[string]any{"billing": list}) // it has only text
	return string(text)
}

// An intentionsRig is a Store that follows the intentions of billing at a scripted agent.
type intentionsRig struct {
	agent   *scriptedAgent
	store   *Store
	allowed *Intentions
	changed chan string
	reports chan Report
}

// What an agent says about a client that no intention is about.
const (
	byDefault = `{"Authorized":%v,"Reason":"Default behavior configured by ACLs"}`
	bySetting = `{"Authorized":%v,"Reason":"Default intention policy"}` // default_intention_policy
)

// newIntentionsRig returns a rig whose agent has the intentions in body, and denies by default.
func newIntentionsRig(t *testing.T, body string) *intentionsRig {
	t.Helper()
	r := &intentionsRig{agent: newScriptedAgent(t), changed: make(chan string, 1000), reports: make(chan Report, 1000)}
	ca := testcert.NewAuthority(t, "ca")
	r.agent.say(rootsPath, said{body: rootsJSON(domain, ca), index: 5})
	r.agent.say(authorizePath, said{body: fmt.Sprintf(byDefault, false)})
	r.agent.say(matchPath+"billing", said{body: body, index: 5, policy: "deny"})
	r.store = NewStore(Options{Consul: r.agent.client(t), IntentionsChanged: func(of string) { r.changed <- of },
		Report: func(report Report) {
			if report.Destination != "" {
				r.reports <- report
			}
		}})
	r.allowed = r.store.Intentions("billing", false)
	run(t, r.store)
	testproc.Await(t, "the intentions and the authorities", func() bool {
		return r.allowed.current.Load() != nil && r.store.State().TrustDomain != ""
	})
	return r
}

func (r *intentionsRig) state() IntentionsState { return r.store.State().Intentions[0] }

func TestChangedIntentionsAreUsed(t *testing.T) {
	r := newIntentionsRig(t, matchJSON("web allow 9"))
	if of := testproc.Receive(t, "the first intentions", r.changed); of != "billing" {
		t.Errorf("got %q", of)
	}
	web := clientNamed("web")
	if d := r.allowed.Decide(web); !d.Allowed || d.By != ByIntention || d.Source != "web" || d.Precedence != 9 {
		t.Errorf("got %+v", d)
	}
	for n := range 2 * soonAtOnce { // more than count at once without any pause
		allow := n%2 == 1
		action := map[bool]string{true: "allow", false: "deny"}[allow]
		r.agent.say(matchPath+"billing", said{body: matchJSON("web " + action + " 9"), index: uint64(6 + n)})
		testproc.Receive(t, "a change", r.changed)
		if d := r.allowed.Decide(web); d.Allowed != allow {
			t.Fatalf("change %d: got %v", n, d)
		}
	}
	if state := r.state(); !state.Known || len(state.Intentions) != 1 || state.DefaultAllow || state.Answered.IsZero() {
		t.Errorf("got %+v", state)
	}
}

// What cannot be used changes nothing, and shows in the State. After that, a good answer is used.
func TestBadAnswersChangeNoIntentions(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		want       string // in the error
	}{
		{"no JSON", "<html>", 0, "it is not the JSON"},
		{"null", "null", 0, `it is not about the intentions of "billing"`},
		{"nothing", "{}", 0, `it is not about the intentions of "billing"`},
		{"another service", `{"stock":[]}`, 0, `it is not about the intentions of "billing"`},
		{"no list", `{"billing":{}}`, 0, "it is not the JSON of intentions"},
		{"half of the JSON", matchJSON("web deny 9")[:60], 0, "it is not the JSON"},
		{"an intention without source", `{"billing":[{"DestinationName":"billing"}]}`, 0, `it has an intention ""`},
		{"an intention of another", strings.ReplaceAll(matchJSON("web deny 9"), `"DestinationName":"billing"`,
			`"DestinationName":"stock"`), 0, `it has an intention "web" -> "stock"`},
		{"an answer without end", `"` + strings.Repeat("x", maxIntentions) + `"`, 0, "bytes"},
		{"many small items", `{"billing":[` + strings.Repeat("{},", 1e6) + `{}]}`, 0, "too many items"},
		{"an error", "no leader", http.StatusInternalServerError, "consul answered 500: no leader"},
		{"a right that was lost", "Permission denied", http.StatusForbidden, "403: Permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newIntentionsRig(t, matchJSON("web allow 9"))
			r.agent.say(matchPath+"billing", said{body: tt.body, index: 9, status: tt.status})
			testproc.Await(t, "an error", func() bool { return r.state().Err != nil })
			if err := r.state().Err; !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
			if report := testproc.Receive(t, "a report", r.reports); report.What != Failed || report.Err == nil {
				t.Errorf("got %+v", report)
			}
			if d := r.allowed.Decide(clientNamed("web")); !d.Allowed || len(r.changed) != 1 {
				t.Errorf("got %v, and %d changes", d, len(r.changed))
			}
			r.agent.say(matchPath+"billing", said{body: matchJSON("web deny 9"), index: 10})
			testproc.Await(t, "a good answer", func() bool { return !r.allowed.Decide(clientNamed("web")).Allowed })
			if report := testproc.Receive(t, "a report", r.reports); report.What != Works {
				t.Errorf("got %+v", report)
			}
			if r.state().Err != nil {
				t.Errorf("the State still says %v", r.state().Err)
			}
		})
	}
}

// Before Consul has answered, the one who asks decides. What an earlier Store knew counts as an answer.
func TestUnknownIntentions(t *testing.T) {
	a := newScriptedAgent(t)
	a.say(matchPath+"billing", said{body: "Permission denied", status: http.StatusForbidden})
	s := NewStore(Options{Consul: a.client(t)})
	deny, allow := s.Intentions("billing", false), s.Intentions("billing", true)
	run(t, s)
	testproc.Await(t, "some questions", func() bool { return a.questions(matchPath+"billing") > 1 })
	web := clientNamed("web")
	for _, tt := range []struct {
		i    *Intentions
		want Decision
	}{{deny, Decision{By: ByNothing}}, {allow, Decision{By: ByNothing, Allowed: true}}} {
		if got := tt.i.Decide(web); got != tt.want {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
	}
	if state := s.State().Intentions; len(state) != 1 || state[0].Known || state[0].Err == nil {
		t.Errorf("got %+v", state)
	}
	r := newIntentionsRig(t, matchJSON("web allow 9", "* l7 8"))
	next := newStore(Options{Saved: r.store.Export()}, silent{})
	saved := next.Intentions("billing", false)
	for _, c := range []Client{web, clientNamed("other")} {
		if got, want := saved.Decide(c), r.allowed.Decide(c); got != want || got.By != ByIntention {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	select {
	case <-saved.Ready():
	default:
		t.Error("saved intentions are not ready")
	}
}

func TestDefaultPolicy(t *testing.T) {
	for _, tt := range []struct {
		name      string
		authorize said
		header    string
		allowed   bool
	}{
		{"deny", said{body: fmt.Sprintf(byDefault, false)}, "deny", false},
		{"allow", said{body: fmt.Sprintf(byDefault, true)}, "allow", true},
		{"an agent that overrides allow", said{body: fmt.Sprintf(bySetting, false)}, "allow", false},
		{"an agent that overrides deny", said{body: fmt.Sprintf(bySetting, true)}, "deny", true},
		{"a wildcard for all namespaces", said{body: `{"Authorized":true,"Reason":"Matched L4 intention: x"}`}, "deny",
			false},
		{"no right, deny", said{status: http.StatusForbidden, body: "Permission denied"}, "deny", false},
		{"no right, allow", said{status: http.StatusForbidden, body: "Permission denied"}, "allow", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newScriptedAgent(t)
			a.say(authorizePath, tt.authorize)
			a.say(matchPath+"billing", said{body: `{"billing":null}`, index: 5, policy: tt.header})
			s := NewStore(Options{Consul: a.client(t)})
			i := s.Intentions("billing", !tt.allowed)
			s.AskOnce(t.Context())
			want := Decision{Allowed: tt.allowed, By: ByDefaultPolicy}
			if got := i.Decide(clientNamed("web")); got != want {
				t.Errorf("got %+v, want %+v, %v", got, want, s.State().Intentions[0].Err)
			}
		})
	}
}

// An agent that cannot say its default policy says nothing that counts.
func TestDefaultPolicyMustBeKnown(t *testing.T) {
	a := newScriptedAgent(t)
	a.say(authorizePath, said{status: http.StatusInternalServerError, body: "No cluster leader"})
	a.say(matchPath+"billing", said{body: matchJSON("web allow 9"), index: 5})
	s := NewStore(Options{Consul: a.client(t)})
	i := s.Intentions("billing", false)
	s.AskOnce(t.Context())
	if got := i.Decide(clientNamed("web")); got.By != ByNothing || s.State().Intentions[0].Err == nil {
		t.Errorf("got %+v", got)
	}
}

// The intentions are asked for once, however many use them, and not any more when all have given them back.
func TestIntentionsAreShared(t *testing.T) {
	r := newIntentionsRig(t, matchJSON("web allow 9"))
	testproc.Await(t, "the question for the next ones", func() bool {
		return r.agent.questions(matchPath+"billing") == 2
	})
	other := r.store.Intentions("billing", false)
	if !other.Decide(clientNamed("web")).Allowed || r.agent.questions(matchPath+"billing") != 2 {
		t.Errorf("%d questions, want 2", r.agent.questions(matchPath+"billing"))
	}
	r.allowed.Close()
	r.allowed.Close()
	if len(r.store.State().Intentions) != 1 {
		t.Error("intentions that are in use are gone")
	}
	other.Close()
	if len(r.store.State().Intentions) != 0 || !other.Decide(clientNamed("web")).Allowed {
		t.Error("intentions without users are still there, or their last decision is not")
	}
}

// Over plain HTTP, each of a few destinations has a connection, and changes count at once. Many take turns.
func TestDestinationsTakeTurns(t *testing.T) {
	for _, tt := range []struct{ destinations, least, most int }{
		{ruleTurns, 150, 260}, {4 * ruleTurns, 6_500, 9_500}, {600, 60_000, 90_000},
	} {
		from := &scriptedSource{ask: waits, http: true}
		synctest.Test(t, func(t *testing.T) {
			from.begun = time.Now()
			s := newStore(Options{}, from)
			for i := range tt.destinations {
				s.Intentions(fmt.Sprint(i), false)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			s.Run(ctx)
		})
		if n := len(from.asked); n < tt.least || n > tt.most {
			t.Errorf("%d destinations asked %d times in ten minutes, want %d to %d", tt.destinations, n, tt.least,
				tt.most)
		}
	}
}

// An agent that answers at once is not asked often. If its answers say that something has changed, it is asked at once
// for a while.
func TestIntentionsOfAnAgentThatAnswersAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name             string
		different, moves bool
		least, most      int // questions in ten minutes
	}{
		{"the same", false, false, 500, 700},
		{"another index", false, true, 25_000, 65_000},
		{"other intentions", true, false, 25_000, 65_000},
	} {
		n := 0
		from := &scriptedSource{ask: func(context.Context, question) error { return nil }, moves: tt.moves}
		if tt.different {
			from.rules = func() *rules { n++; return newRules(nil, n%2 == 0) }
		}
		synctest.Test(t, func(t *testing.T) {
			from.begun = time.Now()
			s := newStore(Options{}, from)
			s.Intentions("billing", false)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			s.Run(ctx)
		})
		if n := len(from.asked); n < tt.least || n > tt.most {
			t.Errorf("%s: %d questions, want %d to %d", tt.name, n, tt.least, tt.most)
		}
		if at := from.asked[soonAtOnce-1]; tt.least > 1000 && at > 0 {
			t.Errorf("%s: a pause before question %d, %v", tt.name, soonAtOnce, at)
		}
	}
}
