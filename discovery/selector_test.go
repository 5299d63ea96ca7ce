package discovery

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// tiered returns a watch of web with a tier for each of these service names.
func tiered(names ...string) Watch {
	w := Watch{Service: "web", Query: Query{Service: names[0]}}
	for _, name := range names[1:] {
		w.Next = append(w.Next, Tier{Query: Query{Service: name}})
	}
	return w
}

// scene runs a source of w with the Consul f in a synctest bubble, and calls do.
func scene(t *testing.T, f *fake, w Watch, do func(r *rig, lines func(...string))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, f, ConsulOptions{Watches: []Watch{w}})
		do(r, func(lines ...string) { t.Helper(); r.want(t, lines...) })
		r.stop()
	})
}

func TestFailoverAndBack(t *testing.T) {
	f := &fake{script: map[string][]reply{
		"one": {ok(20, "a 80"), after(10*time.Second, ok(21)), ok(21), after(5*time.Second, ok(22, "a 80")),
			after(10*time.Second, ok(23)), ok(23),
			after(time.Second, ok(24, "a 80"))},
		"two": {ok(20, "b 81")},
	}}
	scene(t, f, tiered("one", "two"), func(r *rig, want func(...string)) {
		time.Sleep(9 * time.Second)
		want(webA)
		time.Sleep(2 * time.Second) // held endpoints of the first tier do not keep the service in it
		want(webA, webB)
		time.Sleep(14 * time.Second) // the first tier was good for only ten seconds
		want(webA, webB)
		time.Sleep(32 * time.Second)
		want(webA, webB, webA)
		time.Sleep(chorusQuiet)
		synctest.Wait()
		for _, text := range []string{"service fails over", "service is back at an earlier source"} {
			if n := strings.Count(r.log.String(), text); n != 1 {
				t.Errorf("%d lines with %q, want 1:\n%s", n, text, r.log)
			}
		}
		e, _ := r.consul.Explain("web")
		if len(e.Tiers) != 2 || !e.Tiers[0].Active || e.Tiers[1].Active || e.Tiers[1].Available != 1 {
			t.Errorf("explained as %+v", e)
		}
	})
}

// The first set waits only a moment for an earlier tier that does not answer.
func TestFirstSetDoesNotWaitForATierThatIsAway(t *testing.T) {
	f := &fake{script: map[string][]reply{"one": {after(10*time.Second, ok(20, "a 80"))}, "two": {ok(20, "b 81")}}}
	scene(t, f, tiered("one", "two"), func(r *rig, want func(...string)) {
		time.Sleep(time.Second)
		want()
		time.Sleep(2 * time.Second)
		want(webB)
		time.Sleep(36 * time.Second)
		want(webB)
		time.Sleep(2 * time.Second)
		want(webB, webA)
	})
}

// Errors do not make a service leave its tier: the last good set stays.
func TestErrorsDoNotMakeAServiceFailOver(t *testing.T) {
	down := status(500, "No path to datacenter")
	f := &fake{script: map[string][]reply{"one": {ok(20, "a 80"), down, down, down, down, down, down, down, down},
		"two": {ok(20, "b 81")}}}
	scene(t, f, tiered("one", "two"), func(r *rig, want func(...string)) {
		time.Sleep(5 * time.Minute)
		want(webA)
	})
}

func TestFailoverBelow(t *testing.T) {
	f := &fake{script: map[string][]reply{
		"one": {ok(20, "a 80", "b 81"), after(10*time.Second, ok(21, "a 80"))},
		"two": {ok(20, "c 82"), after(20*time.Second, ok(21, "c 82", "d 83"))},
	}}
	w := tiered("one", "two")
	w.Failover.Below = 2
	scene(t, f, w, func(r *rig, want func(...string)) {
		time.Sleep(15 * time.Second)
		want(webA+" n/b=10.0.0.1:81", webA) // no tier has enough endpoints, so the first with any is used
		time.Sleep(10 * time.Second)
		want(webA+" n/b=10.0.0.1:81", webA, "web: n/c=10.0.0.1:82 n/d=10.0.0.1:83")
	})
}

func TestStaticTierIsTheLastResort(t *testing.T) {
	f := &fake{always: status(500, "No cluster leader")}
	w := Watch{Service: "web", Next: []Tier{{Endpoints: []lb.Endpoint{{ID: "s",
		Addr: netip.MustParseAddrPort("10.0.0.9:80"), Weight: 1}}}}}
	scene(t, f, w, func(r *rig, want func(...string)) {
		time.Sleep(3 * time.Second)
		want("web: s=10.0.0.9:80")
		f.mu.Lock()
		f.always = nil
		f.script = map[string][]reply{"web": {ok(20, "a 80")}}
		f.mu.Unlock()
		time.Sleep(time.Minute)
		want("web: s=10.0.0.9:80", webA)
	})
}

// A service stays in its tier when a reload changes other services.
func TestReloadKeepsTheTier(t *testing.T) {
	f := &fake{script: map[string][]reply{"one": {ok(20)}, "two": {ok(20, "b 81")}}}
	scene(t, f, tiered("one", "two"), func(r *rig, want func(...string)) {
		time.Sleep(5 * time.Second)
		want(webB)
		if err := r.consul.Apply([]Watch{tiered("one", "two"), {Service: "other"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		want(webB)
		if err := r.consul.Apply([]Watch{tiered("one")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		want(webB, "web:", "other: removed")
	})
}

func TestPreparedQueryIsPolled(t *testing.T) {
	nodes := func(instances ...string) reply {
		return raw("1", `{"Service":"web","Nodes":`+entriesJSON(instances...)+`,"Failovers":0}`)
	}
	f := &fake{script: map[string][]reply{"query": {nodes("a 80"), nodes("a 80"), status(404, "Query not found"),
		nodes("b 81")}}, always: nodes("b 81")}
	scene(t, f, Watch{Service: "web", Query: Query{Prepared: "nearest/web", Datacenter: "dc2", Filter: "x == y"}},
		func(r *rig, want func(...string)) {
			time.Sleep(time.Second)
			want(webA)
			time.Sleep(30 * time.Second)
			want(webA, webB)
			asks := f.asks()
			if n := len(asks); n < 6 || n > 9 {
				t.Errorf("%d executions in half a minute", n)
			}
			if a := asks[0]; a.values.Get("dc") != "dc2" || a.values.Has("filter") || a.values.Has("index") ||
				a.path != "/v1/query/nearest%2Fweb/execute" {
				t.Errorf("asked %s %v", a.path, a.values)
			}
		})
}

// Unusable endpoints do not count when a tier is checked for enough endpoints. When they become usable, the service
// returns.
func TestWhatIsNotUsableIsNotAvailable(t *testing.T) {
	f := &fake{script: map[string][]reply{"one": {ok(20, "a 80")}, "two": {ok(20, "b 81")}}}
	synctest.Test(t, func(t *testing.T) {
		var unusable atomic.Int64
		usable := func(service string, e lb.Endpoint) bool {
			return service != "web" || int64(e.Addr.Port()) != unusable.Load()
		}
		r := start(t, f, ConsulOptions{Watches: []Watch{tiered("one", "two")}, Usable: usable})
		time.Sleep(time.Second)
		r.want(t, webA)
		unusable.Store(80)
		r.consul.Recount()
		r.want(t, webA, webB)
		if e, _ := r.consul.Explain("web"); e.Tiers[0].Available != 0 || !e.Tiers[1].Active {
			t.Errorf("explained as %+v", e)
		}
		unusable.Store(0)
		r.consul.Recount()
		time.Sleep(29 * time.Second)
		r.want(t, webA, webB)
		time.Sleep(2 * time.Second)
		r.want(t, webA, webB, webA)
		r.stop()
	})
}
