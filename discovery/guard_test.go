package discovery

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// said returns the instances of an answer. Each instance is a name, and its port is the code of its first letter. A
// name that ends in ! is in maintenance, in ? critical, and in ~ warning. "x=a" is x at the address of a.
func said(names ...string) instances {
	var entries []*entry
	for _, name := range names {
		bare, at, renamed := strings.Cut(strings.TrimRight(name, "!?~"), "=")
		if !renamed {
			at = bare
		}
		e := instance(bare, "10.0.0.1", int(at[0]))
		switch {
		case strings.HasSuffix(name, "!"):
			e.Checks = []check{{CheckID: "_node_maintenance", Status: "critical"}}
		case strings.HasSuffix(name, "?"):
			e.Checks = []check{{CheckID: "tcp", Status: "critical"}}
		case strings.HasSuffix(name, "~"):
			e.Checks = []check{{CheckID: "tcp", Status: "warning"}}
		}
		entries = append(entries, e)
	}
	return convert(entries, rules{statuses: passingOnly})
}

func namesOf(endpoints []lb.Endpoint) string {
	var b strings.Builder
	for _, e := range endpoints {
		b.WriteString(strings.TrimPrefix(e.ID, "n/"))
	}
	return b.String()
}

func TestGuard(t *testing.T) {
	type step struct {
		after time.Duration // time since the step before
		says  string        // names, separated by spaces
		want  string        // names; "?" before them: only after the leader has confirmed the answer
	}
	tests := []struct {
		name  string
		guard Guard
		steps []step
	}{
		{"one at a time", Guard{}, []step{{0, "a b c d", "abcd"}, {1, "a b c", "abc"}, {1, "a b", "ab"},
			{1, "a", "a"}}},
		{"half of them is not more than half", Guard{}, []step{{0, "a b c d", "abcd"}, {1, "a b", "ab"}}},
		{"two of three", Guard{}, []step{{0, "a b c", "abc"}, {1, "a", "?abc"}, {9 * time.Second, "a", "abc"},
			{time.Second, "a", "a"}}},
		{"the last", Guard{}, []step{{0, "a", "a"}, {1, "", "?a"}, {10 * time.Second, "", ""}, {1, "", ""}}},
		{"critical is gone too", Guard{}, []step{{0, "a b", "ab"}, {1, "a? b?", "?ab"},
			{10 * time.Second, "a? b?", ""}}},
		{"maintenance is meant", Guard{}, []step{{0, "a b c", "abc"}, {1, "a! b! c!", ""}}},
		{"maintenance of a held one", Guard{}, []step{{0, "a b c", "abc"}, {1, "", "?abc"}, {1, "b!", "ac"}}},
		{"new ones are not held", Guard{}, []step{{0, "a b c", "abc"}, {1, "d", "?abcd"}, {1, "d e", "abcde"},
			{10 * time.Second, "d e", "de"}}},
		{"back again", Guard{}, []step{{0, "a b c d", "abcd"}, {1, "a", "?abcd"}, {1, "a b c d", "abcd"},
			{1, "a b c", "abc"}}},
		{"a few back", Guard{}, []step{{0, "a b c d", "abcd"}, {1, "", "?abcd"}, {1, "a b c", "abcd"},
			{9 * time.Second, "a b c", "abcd"}, {time.Second, "a b c", "abc"}}},
		{"more go while some are held", Guard{},
			[]step{{0, "a b c d", "abcd"}, {1, "a", "?abcd"}, {4 * time.Second, "", "?abcd"},
				{6 * time.Second, "", "a"}, {4 * time.Second, "", ""}}},
		{"registered again under other IDs", Guard{}, []step{{0, "a b c", "abc"}, {1, "x=a y=b z=c", "xyz"}}},
		{"held, then registered again under another ID", Guard{},
			[]step{{0, "a b c", "abc"}, {1, "", "?abc"}, {1, "x=a", "bcx"}}},
		{"held, then another one is there that does not count", Guard{},
			[]step{{0, "a b c", "abc"}, {1, "", "?abc"}, {1, "x=a?", "bc"}, {1, "x=a? y=b~ c", "c"}}},
		{"no holding", Guard{Hold: -1}, []step{{0, "a b c", "abc"}, {1, "a", "?a"}, {1, "", "?"}}},
		{"each loss counts", Guard{MaxDrop: -1}, []step{{0, "a b c d", "abcd"}, {1, "a b c", "?abcd"}}},
		{"each loss of three or more", Guard{MaxDrop: -1}, []step{{0, "a b", "ab"}, {1, "a", "a"}}},
		{"only nothing counts", Guard{MaxDrop: 100}, []step{{0, "a b c d", "abcd"}, {1, "a", "a"}, {1, "", "?a"}}},
		{"own figures", Guard{MaxDrop: 20, Hold: time.Minute},
			[]step{{0, "a b c d", "abcd"}, {1, "a b c", "?abcd"}, {59 * time.Second, "a b c", "abcd"},
				{time.Second, "a b c", "abc"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			var b belief
			for i, s := range tt.steps {
				now = now.Add(s.after)
				e := evidence{now: now, in: said(strings.Fields(s.says)...)}
				want, doubted := strings.CutPrefix(s.want, "?")
				v := b.judge(tt.guard.withDefaults(), e)
				if (v.doubt != "") != doubted {
					t.Fatalf("step %d: doubt %q", i, v.doubt)
				}
				if doubted {
					e.asked = v.next
					v = b.judge(tt.guard.withDefaults(), e)
				}
				if got := namesOf(v.belief.set); got != want || v.doubt != "" {
					t.Fatalf("step %d: got %q, doubt %q, want %q", i, got, v.doubt, want)
				}
				b = v.belief
			}
		})
	}
}

const four = "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81 n/c=10.0.0.1:82 n/d=10.0.0.1:83"

func TestSharpDropIsConfirmedAndHeld(t *testing.T) {
	less := ok(21, "a 80")
	replies := []reply{ok(20, "a 80", "b 81", "c 82", "d 83"), less, less, after(10*time.Second, less)}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{})
		time.Sleep(9 * time.Second)
		r.want(t, four)
		if s := r.status(); s.Held != 3 || s.Endpoints != 4 || s.Doubted != 1 || s.HeldUntil.IsZero() {
			t.Errorf("status %+v", s)
		}
		asks := r.fake.asks()
		if got, want := r.fake.indexes(), `"" "20" "" "21"`; got != want {
			t.Fatalf("indexes %s, want %s", got, want)
		}
		if asks[0].values.Has("consistent") || !asks[2].values.Has("consistent") ||
			asks[3].values.Get("wait") != "10000ms" {
			t.Errorf("asked %v, %v, %v", asks[0].values, asks[2].values, asks[3].values)
		}
		time.Sleep(2 * time.Second)
		r.want(t, four, webA)
		if s := r.status(); s.Held != 0 || !s.HeldUntil.IsZero() || s.Endpoints != 1 {
			t.Errorf("status %+v", s)
		}
		time.Sleep(chorusQuiet)
		synctest.Wait()
		r.log.wantOnce(t, "most instances have vanished at once", "no vanished instances are kept")
		r.stop()
	})
}

// A wrong answer that the servers correct leaves no trace in the log.
func TestSharpDropThatIsNotConfirmed(t *testing.T) {
	all := ok(22, "a 80", "b 81", "c 82", "d 83")
	bubble(t, time.Minute, ConsulOptions{}, []reply{all, ok(23), all}, func(t *testing.T, r *rig) {
		r.want(t, four)
		if s := r.log.String(); strings.Contains(s, "vanished") {
			t.Error(s)
		}
	})
}

// A held endpoint stays while Consul is away.
func TestHeldStaysWhileConsulIsAway(t *testing.T) {
	less, down := ok(21, "a 80"), status(500, "No cluster leader")
	replies := []reply{ok(20, "a 80", "b 81", "c 82", "d 83"), less, less}
	for range 10 {
		replies = append(replies, down)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": replies}}
		r := start(t, f, ConsulOptions{})
		time.Sleep(20 * time.Second)
		r.want(t, four)
		time.Sleep(2 * time.Minute)
		r.want(t, four) // the script is over, and Consul hangs
		r.stop()
	})
}

// Held endpoints stay held after a restart.
func TestHeldOverARestart(t *testing.T) {
	dir := t.TempDir()
	less := ok(21, "a 80")
	bubble(t, 5*time.Second, ConsulOptions{StateDir: dir}, []reply{ok(20, "a 80", "b 81", "c 82", "d 83"), less, less},
		func(t *testing.T, r *rig) {
			r.want(t, four)
		})
	bubble(t, 15*time.Second, ConsulOptions{StateDir: dir}, []reply{less, less, after(10*time.Second, less)},
		func(t *testing.T, r *rig) {
			if got := fmt.Sprint(lines(r.consul.Saved())); got != "[]" {
				t.Errorf("saved set %s is still used after an answer", got)
			}
			r.want(t, four, webA)
		})
}

// The file of an earlier process says by the wall clock when holds end. If that clock has been set back since, a hold
// lasts as long as a new one, and no longer.
func TestResumedHoldsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Guard{Hold: 10 * time.Second, HoldMax: HoldMax{Critical: time.Minute, Forgotten: time.Hour}}.withDefaults()
		in := func(d time.Duration) time.Time { return time.Now().Add(d).Round(0) } // the wall clock only
		held := g.resume(map[string]hold{
			"deregistered": {HoldDeregistered, in(24 * time.Hour)}, "critical": {HoldCritical, in(24 * time.Hour)},
			"forgotten": {HoldForgotten, in(5 * time.Second)}, "over": {HoldForgotten, in(-time.Second)},
		})
		for id, want := range map[string]time.Duration{"deregistered": 10 * time.Second, "critical": time.Minute,
			"forgotten": 5 * time.Second, "over": -time.Second} {
			if left := time.Until(held[id].until); left != want {
				t.Errorf("%s is held for %v, want %v", id, left, want)
			}
		}
	})
}

// If a service is scaled to zero and up again, its new instances join the set at once.
func TestNewInstancesAreNotHeldBack(t *testing.T) {
	replies := []reply{ok(20, "a 80"), ok(21), ok(21), after(time.Second, ok(22, "b 81"))}
	bubble(t, 20*time.Second, ConsulOptions{}, replies, func(t *testing.T, r *rig) {
		r.want(t, webA, webB) // one new endpoint for each held one, so the hold is over
	})
}

// A set that stays sharply smaller does not make Lictor send more queries.
func TestHoldingIsNoReasonToAskMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		f := &fake{}
		f.always = func(req *http.Request) (*http.Response, error) {
			if n++; n == 1 {
				return ok(20, "a 80", "b 81", "c 82")(req)
			}
			d, _ := time.ParseDuration(req.URL.Query().Get("wait"))
			return after(d, ok(20))(req)
		}
		r := start(t, f, ConsulOptions{})
		time.Sleep(90 * time.Second)
		if len(f.asks()) > 7 {
			t.Errorf("asked %s", f.indexes())
		}
		r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81 n/c=10.0.0.1:82", "web:")
		r.stop()
	})
}
