package discovery

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// leaving returns options for a watch of web with these Leaves and without holds.
func leaving(leaves Leaves, change ...func(*Watch)) ConsulOptions {
	w := Watch{Service: "web", Leaves: leaves, Guard: Guard{Hold: -1}}
	for _, f := range change {
		f(&w)
	}
	return ConsulOptions{Watches: []Watch{w}}
}

func tagged(w *Watch)   { w.Query.Tags = []string{"primary"} }
func prepared(w *Watch) { w.Query.Prepared = "query" }

// with answers with instances that have checks: "b 81 critical" is an instance with a critical check.
func with(index int, instances ...string) reply {
	var all []string
	for _, one := range instances {
		f := strings.Fields(one)
		entry := strings.TrimSuffix(entriesJSON(f[0] + " " + f[1])[1:], "]")
		switch {
		case len(f) > 2 && f[2] == "maintenance":
			entry = strings.TrimSuffix(entry, "}") + `,"Checks":[{"CheckID":"_node_maintenance","Status":"critical"}]}`
		case len(f) > 2:
			entry = strings.TrimSuffix(entry, "}") + `,"Checks":[{"CheckID":"c","Status":"` + f[2] + `"}]}`
		}
		all = append(all, entry)
	}
	return raw(itoa(index), "["+strings.Join(all, ",")+"]")
}

func itoa(n int) string { return string(rune('0'+n/10)) + string(rune('0'+n%10)) }

func TestWhoLeftAndWhy(t *testing.T) {
	both := ok(20, "a 80", "b 81")
	only := ok(21, "a 80")
	no := status(500, "No cluster leader")
	for _, tt := range []struct {
		name    string
		options ConsulOptions
		replies []reply
		left    []string // departures of web, without the service's name
		indexes string
	}{
		{"critical", leaving(LeavesIgnored), []reply{both, with(21, "a 80", "b 81 critical")},
			[]string{"n/b=10.0.0.1:81 critical"}, `"" "20" "21"`},
		{"maintenance", leaving(LeavesIgnored), []reply{both, with(21, "a 80", "b 81 maintenance")},
			[]string{"n/b=10.0.0.1:81 critical"}, `"" "20" "21"`},
		{"a status that does not count", leaving(LeavesIgnored), []reply{both, with(21, "a 80", "b 81 warning")},
			[]string{"n/b=10.0.0.1:81 unmatched"}, `"" "20" "21"`},
		{"from one to the other", leaving(LeavesIgnored),
			[]reply{both, with(21, "a 80", "b 81 warning"), with(22, "a 80", "b 81 critical"),
				with(23, "a 80", "b 81 critical")},
			[]string{"n/b=10.0.0.1:81 unmatched", "n/b=10.0.0.1:81 critical"}, `"" "20" "21" "22" "23"`},
		{"vanished, no service is interested", leaving(LeavesIgnored), []reply{both, only}, nil, `"" "20" "21"`},
		{"deregistered", leaving(LeavesConfirmed), []reply{both, only, only}, []string{"n/b=10.0.0.1:81 deregistered"},
			`"" "20" "" "21"`},
		{"not deregistered after all", leaving(LeavesConfirmed), []reply{both, only, ok(22, "a 80", "b 81")}, nil,
			`"" "20" "" "22"`},
		{"deregistered, known later", leaving(LeavesConfirmed), []reply{both, only, no, no, only},
			[]string{"n/b=10.0.0.1:81 deregistered"}, `"" "20" "" "" "" "21"`},
		{"the last", leaving(LeavesConfirmed), []reply{ok(20, "b 81"), ok(21), ok(21)},
			[]string{"n/b=10.0.0.1:81 deregistered"}, `"" "20" "" "21"`},
		{"critical, then deregistered", leaving(LeavesConfirmed),
			[]reply{both, with(21, "a 80", "b 81 critical"), only, only},
			[]string{"n/b=10.0.0.1:81 critical", "n/b=10.0.0.1:81 deregistered"}, `"" "20" "21" "" "21"`},
		{"another address", leaving(LeavesIgnored), []reply{both, ok(21, "a 80", "b 91")},
			[]string{"n/b=10.0.0.1:81 deregistered"}, `"" "20" "21"`},
		{"no address", leaving(LeavesIgnored), []reply{both, ok(21, "a 80", "b 0")},
			[]string{"n/b=10.0.0.1:81 deregistered"}, `"" "20" "21"`},
		{"another name", leaving(LeavesConfirmed), []reply{both, ok(21, "a 80", "c 81")}, nil, `"" "20" "21"`},
		{"two names, one goes", leaving(LeavesConfirmed),
			[]reply{ok(20, "a 80", "b 81", "c 81"), ok(21, "a 80", "c 81")},
			nil, `"" "20" "21"`},
		{"a tag, either way alike", leaving(LeavesConfirmed, tagged), []reply{both, only, only},
			[]string{"n/b=10.0.0.1:81 deregistered or unmatched"}, `"" "20" "" "21"`},
		{"a tag that moved", leaving(LeavesExplained, tagged), []reply{both, only, only, ok(21, "a 80", "b 81")},
			[]string{"n/b=10.0.0.1:81 unmatched"}, `"" "20" "" "" "21"`},
		{"a tag that moved, and the address", leaving(LeavesExplained, tagged),
			[]reply{both, only, only, ok(21, "a 80", "b 91")}, []string{"n/b=10.0.0.1:81 deregistered"},
			`"" "20" "" "" "21"`},
		{"a tag, deregistered", leaving(LeavesExplained, tagged), []reply{both, only, only, only},
			[]string{"n/b=10.0.0.1:81 deregistered"}, `"" "20" "" "" "21"`},
		{"a tag, and no answer", leaving(LeavesExplained, tagged), []reply{both, only, only, no},
			[]string{"n/b=10.0.0.1:81 deregistered or unmatched"}, `"" "20" "" "" "21"`},
		{"the token may not see it", leaving(LeavesConfirmed), []reply{both, only, partly(only)}, nil,
			`"" "20" "" "21"`},
		{"a tag, the token may not see all", leaving(LeavesExplained, tagged), []reply{both, only, only, partly(only)},
			[]string{"n/b=10.0.0.1:81 deregistered or unmatched"}, `"" "20" "" "" "21"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, 20*time.Second, tt.options, tt.replies, func(t *testing.T, r *rig) {
				var want []string
				for _, one := range tt.left {
					want = append(want, "web: "+one)
				}
				r.wantLeft(t, want...)
				checkAsked(t, r, tt.indexes, tt.options.Watches[0].Leaves == LeavesExplained)
			})
		})
	}
}

// checkAsked checks the indexes of the queries. Every query without an index, except the first, must go to the leader.
// If departures are explained, the fourth of five queries asks for instances with any tag.
func checkAsked(t *testing.T, r *rig, indexes string, explained bool) {
	t.Helper()
	if got := r.fake.indexes(); got != indexes {
		t.Errorf("indexes %s, want %s", got, indexes)
	}
	asks := r.fake.asks()
	for i, a := range asks {
		if wants := i > 0 && a.index == ""; a.values.Has("consistent") != wants {
			t.Errorf("query %d: %v", i, a.values)
		}
	}
	if len(asks) == 5 && explained && (asks[3].values.Has("tag") || !asks[2].values.Has("tag")) {
		t.Errorf("asked %v, then %v", asks[2].values, asks[3].values)
	}
}

// A prepared query may leave out an instance for any reason.
func TestLeavesOfAPreparedQuery(t *testing.T) {
	list := func(instances ...string) reply { return raw("", `{"Nodes":`+entriesJSON(instances...)+`}`) }
	replies := []reply{list("a 80", "b 81"), list("a 80"), list("a 80")}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"query": replies}}, leaving(LeavesExplained, prepared))
		time.Sleep(9 * time.Second)
		r.wantLeft(t, "web: n/b=10.0.0.1:81 deregistered or critical or unmatched")
		r.stop()
	})
}

// A held endpoint has not left before its hold ends.
func TestHeldEndpointsHaveNotLeft(t *testing.T) {
	less := ok(21, "a 80")
	replies := []reply{ok(20, "a 80", "b 81", "c 82", "d 83"), less, less, after(10*time.Second, less), less}
	o := leaving(LeavesConfirmed, func(w *Watch) { w.Guard = Guard{} })
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, o)
		time.Sleep(9 * time.Second)
		r.want(t, four)
		r.wantLeft(t)
		time.Sleep(3 * time.Second)
		r.want(t, four, webA, webA)
		r.wantLeft(t, "web: n/b=10.0.0.1:81 deregistered", "web: n/c=10.0.0.1:82 deregistered",
			"web: n/d=10.0.0.1:83 deregistered")
		r.stop()
	})
}

// A service that becomes interested in departures learns of endpoints that vanished before. The service does not wait
// for Consul's next answer.
func TestLeavesAreAskedForLater(t *testing.T) {
	replies := []reply{ok(20, "a 80", "b 81"), ok(21, "a 80"), after(time.Hour, ok(22)), ok(21, "a 80")}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, leaving(LeavesIgnored))
		time.Sleep(time.Second)
		r.wantLeft(t)
		for range 2 { // the second time changes nothing
			if err := r.consul.Apply(leaving(LeavesConfirmed).Watches); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			time.Sleep(time.Millisecond)
			r.wantLeft(t, "web: n/b=10.0.0.1:81 deregistered")
		}
		if got, want := r.fake.indexes(), `"" "20" "21" "" "21"`; got != want {
			t.Errorf("indexes %s, want %s", got, want)
		}
		r.stop()
	})
}

// Departures from a tier that is not in use are reported too. An endpoint in another tier has not left the service.
func TestLeavesOfSeveralSources(t *testing.T) {
	primary := Query{Service: "first"}
	second := Tier{Query: Query{Service: "second"}, Guard: Guard{Hold: -1}}
	o := leaving(LeavesConfirmed, func(w *Watch) { w.Query, w.Next, w.Failover.Below = primary, []Tier{second}, 2 })
	first := []reply{ok(20, "a 80", "b 81", "c 82"), after(100*time.Millisecond, ok(21, "b 81")), ok(21, "b 81"),
		after(time.Second, ok(22)), ok(22)}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"first": first, "second": {ok(20, "x 90", "c 82")}}}, o)
		time.Sleep(time.Second / 2)
		// b stays in the first tier when the service changes to the second.
		r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81 n/c=10.0.0.1:82", "web: n/c=10.0.0.1:82 n/x=10.0.0.1:90",
			"web: n/c=10.0.0.1:82 n/x=10.0.0.1:90")
		r.wantLeft(t, "web: n/a=10.0.0.1:80 deregistered")
		time.Sleep(2 * time.Second)
		r.wantLeft(t, "web: n/a=10.0.0.1:80 deregistered", "web: n/b=10.0.0.1:81 deregistered")
		r.stop()
	})
}

// An endpoint that left while Lictor was not running is reported after Consul's first answer.
func TestLeavesOverARestart(t *testing.T) {
	dir := t.TempDir()
	o := leaving(LeavesConfirmed)
	o.StateDir = dir
	bubble(t, 5*time.Second, o, []reply{ok(20, "a 80", "b 81")}, func(t *testing.T, r *rig) {})
	bubble(t, 5*time.Second, o, []reply{ok(21, "a 80"), ok(21, "a 80")}, func(t *testing.T, r *rig) {
		r.wantLeft(t, "web: n/b=10.0.0.1:81 deregistered")
	})
}

// No endpoint leaves while Consul is lost, or because an agent gives a wrong answer.
func TestNobodyLeavesWhileConsulIsAway(t *testing.T) {
	no := status(500, "No known Consul servers")
	replies := []reply{ok(20, "a 80", "b 81"), after(40*time.Second, raw("1", "[]")), no, no, fails(errNoList),
		ok(20, "a 80", "b 81")}
	bubble(t, 2*time.Minute, leaving(LeavesExplained), replies, func(t *testing.T, r *rig) { r.wantLeft(t) })
}
