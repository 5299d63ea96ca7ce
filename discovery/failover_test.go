package discovery

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

func TestChooseTier(t *testing.T) {
	good := standing{known: true, available: 2, usable: 2}
	troubled := standing{known: true, available: 2, usable: 2, failing: 1}
	failed := standing{known: true, available: 2, usable: 2, failing: 2}
	one := standing{known: true, available: 1, usable: 1}
	oneFailed := standing{known: true, available: 1, usable: 1, failing: 1}
	heldOnly := standing{known: true, available: 0, usable: 2}
	empty := standing{known: true}
	unknown := standing{}
	for _, tt := range []struct {
		name  string
		below int
		tiers []standing
		want  int
	}{
		{"the first", 1, []standing{good, good}, 0},
		{"some fail", 1, []standing{troubled, good}, 0},
		{"all fail", 1, []standing{failed, good}, 1},
		{"all fail, the next has some left", 1, []standing{failed, troubled}, 1},
		{"all fail, the next has none", 1, []standing{failed, empty, good}, 2},
		{"all fail, and the other source has none", 1, []standing{failed, empty}, 0},
		{"all fail everywhere", 1, []standing{empty, failed, failed}, 1},
		{"all fail, the next is not known", 1, []standing{failed, unknown}, 0},
		{"all fail, the next has too few", 2, []standing{failed, one}, 1},
		{"too few, the next fails", 2, []standing{one, failed}, 0},
		{"too few everywhere", 2, []standing{empty, one, one}, 1},
		{"all fail everywhere, the first has just enough", 1, []standing{oneFailed, failed}, 0},
		{"all fail everywhere, the second has enough", 2, []standing{oneFailed, failed}, 1},
		{"all fail everywhere, too few", 2, []standing{empty, oneFailed}, 1},
		{"held only", 1, []standing{heldOnly, good}, 1},
		{"held only everywhere", 1, []standing{heldOnly, empty}, 0},
		{"none known", 1, []standing{unknown, unknown}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (Failover{Below: tt.below}).choose(tt.tiers); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// ailments holds the endpoints that fail, by ID, and records what the source reports because of them.
type ailments struct {
	mu      sync.Mutex
	failing map[string]bool
	standby []string
	told    int // number of calls of OnStandby
	events  []string
}

func (a *ailments) options(w Watch) ConsulOptions {
	return ConsulOptions{
		Watches: []Watch{w},
		Failing: func(_ string, endpoints []lb.Endpoint) (n int) {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, e := range endpoints {
				if a.failing[e.ID] {
					n++
				}
			}
			return n
		},
		OnStandby: func(_ string, endpoints []lb.Endpoint) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.standby = nil
			a.told++
			for _, e := range endpoints {
				a.standby = append(a.standby, e.ID)
			}
		},
		OnEvent: func(e Event) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.events = append(a.events, e.Text)
		},
	}
}

// fail sets the endpoints that fail.
func (a *ailments) fail(r *rig, ids ...string) {
	a.mu.Lock()
	a.failing = map[string]bool{}
	for _, id := range ids {
		a.failing[id] = true
	}
	a.mu.Unlock()
	r.consul.HealthChanged("web")
	synctest.Wait()
}

func (a *ailments) wantStandby(t *testing.T, ids ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.standby, ids) {
		t.Errorf("%q are on standby, want %q", a.standby, ids)
	}
}

// ailingScene runs a source with two tiers: the first tier has a and b, and the second tier has c.
func ailingScene(t *testing.T, f Failover, do func(a *ailments, r *rig, want func(...string))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := tiered("one", "two")
		w.Failover = f
		a := &ailments{}
		r := start(t, &fake{script: map[string][]reply{
			"one": {ok(20, "a 80", "b 81")}, "two": {ok(20, "c 82")},
		}}, a.options(w))
		time.Sleep(time.Second)
		do(a, r, func(lines ...string) { t.Helper(); r.want(t, lines...) })
		r.stop()
	})
}

const (
	webAB = webA + " n/b=10.0.0.1:81"
	webC  = "web: n/c=10.0.0.1:82"
)

// The service leaves a tier at once when all its endpoints fail, and these endpoints go on standby. The service returns
// when one of them has been well for Failover.Hold without a break.
func TestFailoverWhenAllFail(t *testing.T) {
	ailingScene(t, Failover{OnHealth: true}, func(a *ailments, r *rig, want func(...string)) {
		a.fail(r, "n/a")
		want(webAB)
		a.wantStandby(t)
		a.fail(r, "n/a", "n/b")
		want(webAB, webC)
		a.wantStandby(t, "n/a", "n/b")
		wantUses(t, r, "one of dc1: false, all 2 endpoints of one fail from here",
			"two: true, all 2 endpoints of one fail from here")

		a.fail(r, "n/a")
		time.Sleep(20 * time.Second)
		a.fail(r, "n/a", "n/b") // it was not well for long enough
		a.fail(r, "n/b")
		time.Sleep(29 * time.Second)
		want(webAB, webC)
		a.wantStandby(t, "n/a", "n/b") // until the service uses the tier
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want(webAB, webC, webAB)
		a.wantStandby(t)
		a.mu.Lock()
		defer a.mu.Unlock()
		wantEvents := []string{
			"served by two: all 2 endpoints of one fail from here",
			"back to one from two",
		}
		if !slices.Equal(a.events, wantEvents) {
			t.Errorf("got the events %q, want %q", a.events, wantEvents)
		}
		if !strings.Contains(r.log.String(), "all 2 endpoints of one fail from here") {
			t.Errorf("the log does not say why:\n%s", r.log)
		}
	})
}

// An empty first standby list is reported too, once, because an earlier source may have reported endpoints.
func TestTheFirstStandbyListIsToldThoughItIsEmpty(t *testing.T) {
	ailingScene(t, Failover{OnHealth: true}, func(a *ailments, r *rig, _ func(...string)) {
		a.fail(r, "n/a")
		a.fail(r)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.told != 1 || a.standby != nil {
			t.Errorf("OnStandby was called %d times, last with %q, want one call without endpoints", a.told, a.standby)
		}
	})
}

// wantUses checks which tiers are in use, and why. The text of a line before the first colon is ignored.
func wantUses(t *testing.T, r *rig, lines ...string) {
	t.Helper()
	for i, use := range r.consul.Tiers("web") {
		_, want, _ := strings.Cut(lines[i], ": ")
		if got := fmt.Sprintf("%v, %s", use.Active, use.Detail); got != want {
			t.Errorf("tier %d: got %q, want %q", i, got, want)
		}
	}
	if n := len(r.consul.Tiers("web")); n != len(lines) {
		t.Errorf("got %d tiers, want %d", n, len(lines))
	}
}

// When the second tier fails too, the service leaves it, and uses the first tier that is well.
func TestFailoverWhenTheSecondTierFailsToo(t *testing.T) {
	ailingScene(t, Failover{OnHealth: true}, func(a *ailments, r *rig, want func(...string)) {
		a.fail(r, "n/a", "n/b")
		a.fail(r, "n/a", "n/b", "n/c")
		want(webAB, webC, webAB)
		a.wantStandby(t, "n/c")
		a.fail(r, "n/a", "n/b")
		want(webAB, webC, webAB, webC)
		a.fail(r, "n/b", "n/c") // the first tier is better than a failing one, so the service does not wait
		want(webAB, webC, webAB, webC, webAB)
	})
}

func TestFailoverOnConsulTakesNoNoticeOfEjections(t *testing.T) {
	ailingScene(t, Failover{}, func(a *ailments, r *rig, want func(...string)) {
		a.fail(r, "n/a", "n/b")
		time.Sleep(time.Minute)
		want(webAB)
		a.wantStandby(t)
	})
}

// A reload does not change the tier of a service. A reload that turns failover by health off makes the service return.
func TestReloadDuringFailoverByHealth(t *testing.T) {
	ailingScene(t, Failover{OnHealth: true}, func(a *ailments, r *rig, want func(...string)) {
		a.fail(r, "n/a", "n/b")
		w := tiered("one", "two")
		w.Failover = Failover{OnHealth: true, Hold: time.Hour}
		if err := r.consul.Apply([]Watch{w}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want(webAB, webC, webC)
		a.wantStandby(t, "n/a", "n/b")
		w.Failover.OnHealth = false
		if err := r.consul.Apply([]Watch{w}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want(webAB, webC, webC, webAB)
		a.wantStandby(t)
		if err := r.consul.Apply(nil); err != nil {
			t.Fatal(err)
		}
		a.fail(r) // the service no longer exists
	})
}
