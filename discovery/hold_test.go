package discovery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// born sets the index at which the node of all instances in an answer was registered.
func born(in instances, index uint64) instances {
	for i := range in.all {
		in.all[i].born = index
	}
	return in
}

// node returns the record of a node that was registered at an index. The services of the node have names and places as
// in said.
func node(index uint64, names ...string) map[string]record {
	r := record{known: true, born: index, services: map[string]lb.Place{}}
	for _, one := range said(names...).all {
		_, id := splitID(one.ID)
		r.services[id] = one.Endpoint.Place()
	}
	return map[string]record{"n": r}
}

// holdsOf describes the held endpoints: "a critical 1m0s".
func holdsOf(b belief, now time.Time) string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(b.held)) {
		h := b.held[id]
		all = append(all, fmt.Sprint(strings.TrimPrefix(id, "n/"), " ", h.why, " ", h.until.Sub(now)))
	}
	return strings.Join(all, ", ")
}

func TestHoldsByReason(t *testing.T) {
	gone := map[string]record{"n": {}}
	others := Guard{Hold: 2 * time.Second, HoldMax: HoldMax{Critical: 3 * time.Second, Forgotten: 4 * time.Second}}
	nothing := Guard{Hold: -1, HoldMax: HoldMax{Critical: -1, Forgotten: -1}}
	for _, tt := range []struct {
		name    string
		guard   Guard
		kind    queryKind
		index   uint64 // index of the answer; the index of the set is 7
		says    string
		records map[string]record
		want    string
	}{
		{"maintenance", Guard{}, plainQuery, 9, "a!", nil, ""},
		{"critical", Guard{}, plainQuery, 9, "a?", nil, "a critical 1m0s"},
		{"warning", Guard{}, plainQuery, 9, "a~", nil, "a critical 1m0s"},
		{"critical elsewhere", Guard{}, plainQuery, 9, "a=z?", nil, "a deregistered 10s"},
		{"deregistered", Guard{}, plainQuery, 9, "", node(5, "b"), "a deregistered 10s"},
		{"its node is unknown", Guard{}, plainQuery, 9, "", gone, "a forgotten 1m0s"},
		{"its node was registered anew", Guard{}, plainQuery, 9, "", node(6, "b"), "a forgotten 1m0s"},
		{"the index did not rise", Guard{}, plainQuery, 7, "", node(5, "b"), "a forgotten 1m0s"},
		{"the reason is not known", Guard{}, plainQuery, 9, "", nil, "a forgotten 1m0s"},
		{"back meanwhile", Guard{}, plainQuery, 9, "", node(5, "a"), "a deregistered 10s"},
		{"a tag that moved", Guard{}, narrowQuery, 9, "", node(5, "a"), ""},
		{"a tag, deregistered", Guard{}, narrowQuery, 9, "", node(5), "a deregistered 10s"},
		{"a tag, moved", Guard{}, narrowQuery, 9, "", node(5, "a=z"), "a deregistered 10s"},
		{"a prepared query, left out", Guard{}, preparedQuery, 0, "", node(5, "a"), "a critical 1m0s"},
		{"a prepared query, deregistered", Guard{}, preparedQuery, 0, "", node(5), "a deregistered 10s"},
		{"another service is there", Guard{}, plainQuery, 9, "", node(5, "b=a"), ""},
		{"another instance is there", Guard{}, plainQuery, 9, "b=a?", nil, ""},
		{"own figures, critical", others, plainQuery, 9, "a?", nil, "a critical 3s"},
		{"own figures, deregistered", others, plainQuery, 9, "", node(5), "a deregistered 2s"},
		{"own figures, forgotten", others, plainQuery, 9, "", gone, "a forgotten 4s"},
		{"no holding, critical", nothing, plainQuery, 9, "a?", nil, ""},
		{"no holding, deregistered", nothing, plainQuery, 9, "", node(5), ""},
		{"no holding, forgotten", nothing, plainQuery, 9, "", gone, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, now := tt.guard.withDefaults(), time.Now()
			b := belief{}.judge(g, evidence{now: now, index: 7, in: born(said("a"), 5)}).belief
			e := evidence{now: now, asked: leader, index: tt.index, kind: tt.kind, records: tt.records, probed: true,
				in: born(said(strings.Fields(tt.says)...), 5)}
			v := b.judge(g, e)
			if got := holdsOf(v.belief, now); got != tt.want || v.doubt != "" {
				t.Errorf("held %q, doubt %q, want %q", got, v.doubt, tt.want)
			}
			e.probed = false
			for _, h := range b.judge(g, e).belief.held {
				if h.until.After(now.Add(g.Hold)) {
					t.Errorf("without probes held for %v", h.until.Sub(now))
				}
			}
		})
	}
}

// Records are read only for endpoints of a sharp loss that the answer does not name, after the leader has confirmed it.
func TestPuzzles(t *testing.T) {
	g := Guard{}.withDefaults()
	b := belief{}.judge(g, evidence{index: 7, in: said("a", "b", "c")}).belief
	many := belief{}
	for i := range maxPuzzles + 1 {
		many.set = append(many.set, lb.Endpoint{ID: fmt.Sprint("n%2F", i, "%25/a")})
	}
	few := belief{set: many.set[:1]}
	for _, tt := range []struct {
		name  string
		b     belief
		asked question
		says  string
		want  string
	}{
		{"all vanished", b, leader, "", "[n]"},
		{"not confirmed", b, at(7), "", "[]"},
		{"not sharp", b, leader, "a b", "[]"},
		{"all critical", b, leader, "a? b? c?", "[]"},
		{"some vanished", b, leader, "a?", "[n]"},
		{"a name with a slash", few, leader, "", "[n/0%]"},
		{"too many nodes", many, leader, "", "[]"},
	} {
		got := tt.b.puzzles(g, &evidence{asked: tt.asked, in: said(strings.Fields(tt.says)...)})
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: got %q, want %s", tt.name, got, tt.want)
		}
	}
}

// A hold ends early when probes fail, or when as many new endpoints have joined as are held.
func TestHoldsThatEndEarly(t *testing.T) {
	type step struct {
		after time.Duration
		says  string
		dead  string // endpoints that probes do not reach
		want  string // names in the set
	}
	for name, steps := range map[string][]step{
		"a primary that moved":      {{0, "a", "", "a"}, {0, "a?", "", "a"}, {0, "a? b", "", "b"}},
		"another one at once":       {{0, "a b c", "", "abc"}, {0, "x y z", "", "xyz"}},
		"fewer new ones":            {{0, "a b c", "", "abc"}, {0, "x", "", "abcx"}, {0, "x y", "", "abcxy"}},
		"as many, by and by":        {{0, "a b c", "", "abc"}, {0, "x", "", "abcx"}, {0, "x y z", "", "xyz"}},
		"one that returns is old":   {{0, "a b", "", "ab"}, {0, "", "", "ab"}, {0, "a", "", "ab"}},
		"it returns by another ID":  {{0, "a b", "", "ab"}, {0, "", "", "ab"}, {0, "x=a", "", "bx"}},
		"new ones that leave again": {{0, "a b c", "", "abc"}, {0, "x", "", "abcx"}, {0, "y", "", "abcxy"}},
		"one cannot be reached":     {{0, "a b", "", "ab"}, {0, "", "", "ab"}, {0, "", "b", "a"}},
		"one that is in is not probed": {
			{0, "a b", "", "ab"}, {0, "", "", "ab"}, {0, "b", "b", "ab"}},
		"critical for long": {
			{0, "a", "", "a"}, {0, "a?", "", "a"}, {59 * time.Second, "a?", "", "a"},
			{1e9, "a?", "", ""},
		},
		"forgotten, then critical": {
			{0, "a", "", "a"}, {0, "", "", "a"}, {50 * time.Second, "a?", "", "a"},
			{59e9, "a?", "", "a"}, {1e9, "a?", "", ""},
		},
		"critical, then forgotten": {
			{0, "a", "", "a"}, {0, "a?", "", "a"}, {50 * time.Second, "", "", "a"},
			{10e9, "", "", ""},
		},
		"maintenance ends a hold":       {{0, "a", "", "a"}, {0, "a?", "", "a"}, {0, "a!", "", ""}},
		"the next loss after a new one": {{0, "a", "", "a"}, {0, "a?", "", "a"}, {0, "b", "", "b"}, {0, "b?", "", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, now := Guard{}.withDefaults(), time.Now()
			var b belief
			for i, s := range steps {
				now = now.Add(s.after)
				e := evidence{now: now, asked: leader, index: 7, probed: true, in: said(strings.Fields(s.says)...)}
				for _, name := range s.dead {
					e.unreachable = map[string]bool{"n/" + string(name): true}
				}
				b = b.judge(g, e).belief
				if got := namesOf(b.set); got != s.want {
					t.Fatalf("step %d: got %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// A fakeProber reaches all endpoints except those in dead.
type fakeProber struct {
	mu   sync.Mutex
	dead map[string]bool // by ID
	no   bool            // nothing can be probed
	asks int
	last lb.Endpoint // probed last
}

func (p *fakeProber) CanProbe(string) bool { return !p.no }

func (p *fakeProber) Probe(_ context.Context, _ string, e lb.Endpoint) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks++
	p.last = e
	if p.dead[e.ID] {
		return syscall.ECONNREFUSED
	}
	return nil
}

func (p *fakeProber) kill(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = map[string]bool{id: true}
}

// A held endpoint is dropped when probes no longer reach it, after the leader has confirmed again that it is missing. A
// held endpoint that this host cannot probe for local reasons stays.
func TestHeldEndpointsAreProbed(t *testing.T) {
	none := with(21, "a 80 critical", "b 81 critical", "c 82 critical")
	replies := []reply{ok(20, "a 80", "b 81", "c 82"), none, none, hang, none}
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProber{}
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{Prober: p})
		time.Sleep(30 * time.Second)
		const all = "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81 n/c=10.0.0.1:82"
		r.want(t, all)
		if s := r.status(); s.Held != 3 || s.Holds != 3 {
			t.Errorf("status %+v", s)
		}
		p.kill("n/b")
		time.Sleep(5 * time.Second)
		r.want(t, all, "web: n/a=10.0.0.1:80 n/c=10.0.0.1:82")
		if got, want := r.fake.indexes(), `"" "20" "" "21" "" "21"`; got != want {
			t.Errorf("indexes %s, want %s", got, want)
		}
		if asks := r.fake.asks(); !asks[4].values.Has("consistent") {
			t.Errorf("asked %v", asks[4].values)
		}
		r.log.wantOnce(t, "most instances have vanished at once", `reasons="3 critical"`)
		r.stop()
	})
}

// Deregistered endpoints are not probed, and no endpoint is probed after the holds have ended.
func TestNothingElseIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProber{}
		back := after(20*time.Second, ok(22, "a 80"))
		replies := []reply{ok(20, "a 80"), with(21, "a 80 critical"), with(21, "a 80 critical"), back}
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{Prober: p})
		time.Sleep(30 * time.Second)
		p.mu.Lock()
		asks := p.asks
		p.mu.Unlock()
		time.Sleep(time.Hour)
		if p.asks != asks || asks < 10 || asks > 30 {
			t.Errorf("%d probes in 20 s of a hold, %d an hour later", asks, p.asks)
		}
		r.stop()
	})
}

// When the only instance of a service is deregistered, the log has one line, however Consul confirms the loss.
func TestDeregisteredIsOneLine(t *testing.T) {
	record := raw("21", `{"Node":{"Node":"n","Address":"10.0.0.1","CreateIndex":5},"Services":[]}`)
	replies := []reply{ok(20, "a 80"), ok(21), ok(21), after(10*time.Second, ok(21))}
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": replies}, ping: record}
		r := start(t, f, ConsulOptions{Prober: &fakeProber{}})
		time.Sleep(9 * time.Second)
		r.want(t, webA)
		time.Sleep(20 * time.Second)
		r.want(t, webA, "web:")
		r.log.wantOnce(t, "the only instance was deregistered")
		if got := strings.Count(r.log.String(), "\n"); got != 1 {
			t.Errorf("%d lines:\n%s", got, r.log)
		}
		r.stop()
	})
}

// After an upgrade, holds continue for the rest of their time, without another log line.
func TestHoldsOverAnUpgrade(t *testing.T) {
	none := with(21, "a 80 critical", "b 81 critical")
	both := "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81"
	synctest.Test(t, func(t *testing.T) {
		o := ConsulOptions{Prober: &fakeProber{}}
		r := start(t, &fake{script: map[string][]reply{"web": {ok(20, "a 80", "b 81"), none, none}}}, o)
		time.Sleep(40 * time.Second)
		saved, err := r.consul.Save()
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		o.Saved = saved
		r = start(t, &fake{script: map[string][]reply{"web": {none, after(21*time.Second, none)}}}, o)
		if s := r.status(); s.Held != 2 {
			t.Errorf("status before an answer %+v", s)
		}
		time.Sleep(15 * time.Second)
		r.want(t, both)
		if s := r.status(); s.Held != 2 || s.Holds != 0 {
			t.Errorf("status %+v", s)
		}
		x, _ := r.consul.Explain("web")
		if one := x.Tiers[0].Instances[0]; one.HeldFor != HoldCritical || x.Tiers[0].Available != 0 {
			t.Errorf("explained %+v", x.Tiers[0])
		}
		time.Sleep(time.Minute)
		r.want(t, both, "web:")
		if s := r.log.String(); strings.Contains(s, "most instances have vanished") {
			t.Errorf("logged again:\n%s", s)
		}
		r.stop()
	})
}
