package discovery

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// A choosing is a selector without watches, with a recorder of what it sends.
type choosing struct {
	*selector
	*recorder
	log journal
}

// chooser returns a started selector of web with the defaults of Failover and these tiers.
func chooser(t *testing.T, o ConsulOptions, tiers ...*tier) *choosing {
	c := &choosing{recorder: &recorder{}}
	o.Logger = c.log.logger(hclog.Info)
	for i, one := range tiers {
		one.name = string(rune('A' + i))
	}
	changes := newChorus(func(all []failoverReport) { tellFailover(o.Logger, all) })
	t.Cleanup(changes.close)
	source := &Consul{options: o, sink: c.recorder, changes: changes}
	c.selector = &selector{service: "web", consul: source, tiers: tiers, active: -1,
		failover: Failover{Below: 1, Hold: time.Hour}, begun: time.Now()}
	c.consul.byService.Store("web", c.selector)
	t.Cleanup(c.close)
	return c
}

// tierOf returns a tier with a watch that has answered with endpoints of these names. Names after "-" are held.
func tierOf(names string) *tier {
	t := &tier{watch: &watch{}}
	t.known, t.set, t.unheld = true, endpointsOf(names), len(strings.Split(names, "-")[0])
	return t
}

func endpointsOf(names string) (all []lb.Endpoint) {
	for _, name := range strings.ReplaceAll(names, "-", "") {
		addr := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(name))
		all = append(all, lb.Endpoint{ID: string(name), Addr: addr})
	}
	return all
}

// set makes the named endpoints the set of a tier.
func (c *choosing) set(i int, names string) {
	one := tierOf(names)
	c.deliver(c.tiers[i].watch, one.set, one.unheld, false, nil)
}

func (c *choosing) wantSets(t *testing.T, sets ...string) {
	t.Helper()
	var got []string
	for _, line := range c.got() {
		var names string
		for _, word := range strings.Fields(line)[1:] {
			names += word[:1]
		}
		got = append(got, names)
	}
	if !slices.Equal(got, sets) {
		t.Errorf("sent %q, want %q", got, sets)
	}
}

func TestShortfallOfATier(t *testing.T) {
	for _, tt := range []struct {
		s    standing
		want string
	}{
		{standing{true, 2, 2, 1}, ""},
		{standing{}, "dc1 has not answered yet"},
		{standing{true, 1, 1, 1}, "the only endpoint of dc1 fails from here"},
		{standing{true, 2, 2, 2}, "all 2 endpoints of dc1 fail from here"},
		{standing{true, 1, 1, 0}, "dc1 has too few endpoints: 1, and failover_below is 2"},
		{standing{true, 0, 0, 0}, "dc1 has too few endpoints: 0, and failover_below is 2"},
	} {
		if got := (Failover{Below: 2}).shortfall("dc1", tt.s); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.s, got, tt.want)
		}
	}
}

func TestTiersSayWhyTheyAreUsedOrNot(t *testing.T) {
	good, few := standing{known: true, available: 1, usable: 1}, standing{known: true}
	const tooFew, back = " has too few endpoints: 0, and failover_below is 1", "it is good again, and in use from "
	at := time.Date(2000, 1, 1, 10, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		name   string
		active int
		better time.Time
		tiers  []standing
		want   []string
	}{
		{"the first", 0, time.Time{}, []standing{good, good}, []string{"true ", "false "}},
		{"the first, though it is short", 0, time.Time{}, []standing{few, few},
			[]string{"true A" + tooFew, "false B" + tooFew}},
		{"the second", 1, time.Time{}, []standing{few, good, few},
			[]string{"false A" + tooFew, "true why", "false C" + tooFew}},
		{"the second, later ones are good", 1, at, []standing{few, good, good},
			[]string{"false A" + tooFew, "true why", "false "}},
		{"the first is good again", 1, at, []standing{good, good},
			[]string{"false " + back + "11:00:00 if it stays so", "true why"}},
		{"it is not known since when", 1, time.Time{}, []standing{good, good}, []string{"false ", "true why"}},
		{"one of two is good again", 2, at, []standing{few, good, good},
			[]string{"false A" + tooFew, "false " + back + "11:00:00 if it stays so", "true why"}},
		{"it has one", 0, time.Time{}, []standing{good}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tiers []*tier
			for _, s := range tt.tiers {
				tiers = append(tiers, &tier{standing: s})
			}
			c := chooser(t, ConsulOptions{}, tiers...)
			c.active, c.why, c.better = tt.active, "why", tt.better
			var got []string
			for _, use := range c.consul.Tiers("web") {
				got = append(got, fmt.Sprintf("%v %s", use.Active, use.Detail))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Unusable endpoints do not count as failing, and are not on standby. Before the first set and after the end of the
// source, no endpoint is on standby.
func TestTierIsJudgedByItsUsableEndpoints(t *testing.T) {
	failing, standby, told := "b", "", 0
	a := chooser(t, ConsulOptions{
		Usable: func(_ string, e lb.Endpoint) bool { return e.ID != "b" },
		Failing: func(_ string, all []lb.Endpoint) (n int) {
			for _, e := range all {
				if strings.Contains(failing, e.ID) {
					n++
				}
			}
			return n
		},
		OnStandby: func(_ string, all []lb.Endpoint) {
			standby, told = "", told+1
			for _, e := range all {
				standby += e.ID
			}
		},
	}, tierOf("ab"), tierOf("c"))
	a.failover.OnHealth = true
	began := a.begun
	a.begun, failing = time.Time{}, "abc"
	a.look()
	a.tiers[0].known, a.begun, failing = false, began, "b"
	a.look()
	if told != 0 {
		t.Errorf("OnStandby was called %d times before the first set", told)
	}
	a.set(0, "ab")
	a.wantSets(t, "ab")
	failing = "ab"
	a.look()
	a.wantSets(t, "ab", "c")
	if standby != "a" {
		t.Errorf("%q are on standby, want a", standby)
	}
	a.close()
	failing, told = "abc", 0
	a.set(0, "abd")
	a.wantSets(t, "ab", "c")
	if told != 0 {
		t.Error("OnStandby was called after the end")
	}
}

// Unusable held endpoints do not make the number of available endpoints negative.
func TestTierWithHeldEndpointsThatAreNotUsable(t *testing.T) {
	c := chooser(t, ConsulOptions{Usable: func(string, lb.Endpoint) bool { return false }}, tierOf("-ab"), tierOf(""))
	if all := c.countLocked(); all[0] != (standing{known: true}) {
		t.Errorf("got %+v", all[0])
	}
}

func TestOnlyTierIsNotJudged(t *testing.T) {
	o := ConsulOptions{
		Usable:  func(string, lb.Endpoint) bool { t.Error("asked what is usable"); return true },
		Failing: func(string, []lb.Endpoint) int { t.Error("asked what fails"); return 0 },
	}
	c := chooser(t, o, tierOf("a"))
	c.failover.OnHealth = true
	c.look()
	c.wantSets(t, "a")
}

// Any number of simultaneous health changes makes a service look once, if it fails over because of health.
func TestHealthChangedCausesOneLookAtTheTiers(t *testing.T) {
	for _, on := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int32
			o := ConsulOptions{Usable: func(string, lb.Endpoint) bool { asked.Add(1); return true }}
			c := chooser(t, o, tierOf("a"), tierOf("b"))
			c.failover.OnHealth = on
			c.look()
			want := int32(0)
			if on {
				want = asked.Load()
			}
			asked.Store(0)
			for range 3 {
				c.consul.HealthChanged("web")
			}
			synctest.Wait()
			time.Sleep(time.Second)
			if n := asked.Load(); n != want {
				t.Errorf("on health %v: %d endpoints looked at, want %d", on, n, want)
			}
		})
	}
}

// While a service stays in its tier, changes are not failovers, and the reason stays the same.
func TestReasonForTheTierStays(t *testing.T) {
	c := chooser(t, ConsulOptions{}, tierOf(""), tierOf("b"))
	c.look()
	c.set(0, "a")
	c.set(1, "bc")
	c.wantSets(t, "b", "bc")
	c.consul.changes.flush()
	c.log.wantOnce(t, "service fails over")
	want := "A has too few endpoints: 0, and failover_below is 1"
	if got := c.consul.Tiers("web")[1].Detail; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Failover.Hold begins when the first tier becomes good, even if the service has just returned to the second tier.
func TestEachReturnToATierWaits(t *testing.T) {
	c := chooser(t, ConsulOptions{}, tierOf(""), tierOf(""), tierOf("c"))
	now := time.Now()
	c.updateLocked(now)
	c.tiers[1] = tierOf("b")
	c.updateLocked(now)
	c.tiers[0] = tierOf("")
	c.updateLocked(now.Add(time.Hour))
	c.wantSets(t, "c", "b")
	c.tiers[0] = tierOf("a")
	c.updateLocked(now.Add(time.Hour + time.Minute))
	c.wantSets(t, "c", "b")
	c.updateLocked(now.Add(2*time.Hour + time.Minute))
	c.wantSets(t, "c", "b", "a")
}

// If a good tier has a set, the first set waits for an earlier tier, but not for a later one.
func TestFirstSetDoesNotWaitForALaterTier(t *testing.T) {
	c := chooser(t, ConsulOptions{}, tierOf("a"), &tier{watch: &watch{}})
	c.look()
	c.wantSets(t, "a")
}

// saved returns a set of an earlier process, and the selector does not send it. When disown drops the set, the sink
// gets an empty set.
func TestSavedSetOfATier(t *testing.T) {
	saved := func(c *choosing, want string) {
		t.Helper()
		if set, is := c.saved(); is != (want != "") || is && !slices.Equal(set, endpointsOf(want)) {
			t.Errorf("saved %v, want %q", set, want)
		}
	}
	restored := tierOf("a")
	restored.restored = true
	c := chooser(t, ConsulOptions{}, restored, tierOf("b"))
	c.look()
	c.wantSets(t)
	saved(c, "a")
	c.disown(c.tiers[1].watch) // not a saved set
	c.disown(c.tiers[0].watch)
	c.wantSets(t, "", "")
	c.begun = c.begun.Add(-firstChance)
	c.look()
	c.wantSets(t, "", "", "b")
	saved(c, "")
	restored.restored, restored.set = true, endpointsOf("a")
	c.disown(restored.watch) // the sink has another set by now
	c.wantSets(t, "", "", "b")

	saved(chooser(t, ConsulOptions{}, tierOf("a")), "") // not of an earlier process
	c = chooser(t, ConsulOptions{}, tierOf(""), tierOf("b"))
	c.tiers[1].restored = true
	saved(c, "b")
	c.active = 0 // the selector has sent a set
	saved(c, "")

	for name, end := range map[string]func(*choosing){
		"closed":  func(c *choosing) { c.close() },
		"not yet": func(c *choosing) { c.begun = time.Time{} },
	} {
		c := chooser(t, ConsulOptions{}, tierOf("a"))
		c.tiers[0].restored = true
		end(c)
		c.disown(c.tiers[0].watch)
		if got := c.got(); len(got) != 0 {
			t.Errorf("%s: sent %q", name, got)
		}
	}
}

// A departure is passed on even if the set has not changed, unless another tier has the endpoint.
func TestDeparturesFromTiers(t *testing.T) {
	c := chooser(t, ConsulOptions{}, tierOf("a"), tierOf("b"))
	c.look()
	gone := []lb.Departure{{Endpoint: endpointsOf("b")[0]}, {Endpoint: endpointsOf("x")[0]}}
	c.deliver(c.tiers[1].watch, c.tiers[1].set, 1, false, gone)
	c.wantSets(t, "a", "a")
	if len(c.selector.left) != 0 || len(c.recorder.left) != 1 || !strings.Contains(c.recorder.left[0], "x=") {
		t.Errorf("left %q, and untold %v", c.recorder.left, c.selector.left)
	}
}

func TestSelectorIsTheSame(t *testing.T) {
	w := &watch{}
	tiers := func(name, static string) []*tier {
		return []*tier{{name: name, watch: w}, {name: "s", set: endpointsOf(static)}, {name: "again", watch: w}}
	}
	s := &selector{tiers: tiers("a", "xy"), failover: Failover{Below: 1}}
	for _, tt := range []struct {
		name  string
		below int
		tiers []*tier
		want  bool
	}{
		{"the same", 1, tiers("a", "xy"), true},
		{"another failover", 2, tiers("a", "xy"), false},
		{"another name", 1, tiers("b", "xy"), false},
		{"other static endpoints", 1, tiers("a", "xz"), false},
		{"fewer", 1, tiers("a", "xy")[:2], false},
	} {
		if got := s.same(plan{failover: Failover{Below: tt.below}}, tt.tiers); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := s.sources(); len(got) != 1 || got[0] != w {
		t.Errorf("%d sources, want one", len(got))
	}
}
