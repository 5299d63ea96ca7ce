package discovery

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

const webA, webB = "web: n/a=10.0.0.1:80", "web: n/b=10.0.0.1:81"

// bubble runs a source in a synctest bubble, and calls check after d.
func bubble(t *testing.T, d time.Duration, o ConsulOptions, replies []reply, check func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, o)
		time.Sleep(d)
		synctest.Wait()
		check(t, r)
		r.stop()
	})
}

func TestFirstQueryAsksTheServersThenBlocks(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{Wait: 40 * time.Second}, []reply{ok(20, "a 80")}, func(t *testing.T, r *rig) {
		r.want(t, webA)
		asks := r.fake.asks()
		if got, want := r.fake.indexes(), `"" "20"`; got != want {
			t.Fatalf("indexes %s, want %s", got, want)
		}
		if asks[0].values.Has("wait") {
			t.Errorf("first query %v", asks[0].values)
		}
		wait, err := time.ParseDuration(asks[1].values.Get("wait"))
		if err != nil || wait < 36*time.Second || wait > 44*time.Second {
			t.Errorf("wait %v %v, want 40s give or take a tenth", wait, err)
		}
	})
}

func TestChangeIsPublishedAtOnce(t *testing.T) {
	bubble(t, 3*time.Second, ConsulOptions{}, []reply{ok(20, "a 80"), after(time.Second, ok(21, "b 81"))},
		func(t *testing.T, r *rig) {
			r.want(t, webA, webB)
			if s := r.status(); s.Index != 21 || s.Endpoints != 1 || s.Updates != 2 || s.Queries != 3 ||
				s.LastChange.IsZero() {
				t.Errorf("status %+v", s)
			}
		})
}

func TestIndexBackDropsTheAnswerAndAsksTheServers(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20, "a 80"), ok(14, "x 1"), ok(14, "b 81")},
		func(t *testing.T, r *rig) {
			r.want(t, webA, webB)
			if got, want := r.fake.indexes(), `"" "20" "" "14"`; got != want {
				t.Errorf("indexes %s, want %s", got, want)
			}
			asks := r.fake.asks()
			if d := asks[2].at.Sub(asks[1].at); d != 0 {
				t.Errorf("servers asked after %v, want at once", d)
			}
		})
}

func TestIndexBackAgainAndAgainIsSlowedDown(t *testing.T) {
	var replies []reply
	for range 500 {
		replies = append(replies, ok(20, "a 80"), ok(14, "x 1"))
	}
	bubble(t, time.Minute, ConsulOptions{}, replies, func(t *testing.T, r *rig) {
		r.want(t, webA)
		if n := len(r.fake.asks()); n > 60 {
			t.Errorf("%d queries in a minute", n)
		}
	})
}

func TestIndexZeroIsAskedWithAsOne(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(0, "a 80")}, func(t *testing.T, r *rig) {
		r.want(t, webA)
		if got, want := r.fake.indexes(), `"" "1"`; got != want {
			t.Errorf("indexes %s, want %s", got, want)
		}
	})
}

// An agent that was restarted while its servers are away has an empty view. The agent answers with the empty view when
// the wait is over.
func TestFalseEmptyIsNotPublished(t *testing.T) {
	no := status(500, "No known Consul servers")
	bubble(t, time.Minute, ConsulOptions{}, []reply{ok(20, "a 80"), after(40*time.Second, raw("1", "[]")), no, no, no,
		ok(25, "b 81")},
		func(t *testing.T, r *rig) {
			r.want(t, webA, webB)
			if s := r.status(); s.Doubted != 1 || s.Errors != 3 {
				t.Errorf("status %+v", s)
			}
		})
}

// unheld returns options for a watch of web without holds.
func unheld() ConsulOptions {
	return ConsulOptions{Watches: []Watch{{Service: "web", Guard: Guard{Hold: -1}}}}
}

// When a token loses a right, the agent's view becomes empty, with a valid index.
func TestEmptyIsConfirmedByTheServers(t *testing.T) {
	t.Run("true", func(t *testing.T) {
		bubble(t, time.Second, unheld(), []reply{ok(20, "a 80"), ok(21), ok(21)}, func(t *testing.T, r *rig) {
			r.want(t, webA, "web:")
			if got, want := r.fake.indexes(), `"" "20" "" "21"`; got != want {
				t.Errorf("indexes %s, want %s", got, want)
			}
			if d := time.Since(r.status().LastChange); d != time.Second {
				t.Errorf("published %v ago, want at once", d)
			}
		})
	})
	t.Run("false", func(t *testing.T) {
		bubble(t, time.Minute, ConsulOptions{},
			[]reply{ok(20, "a 80"), ok(21), filteredEmpty, after(gatherQuiet, filteredEmpty), ok(22, "a 80", "b 81")},
			func(t *testing.T, r *rig) {
				r.want(t, webA, webA+" n/b=10.0.0.1:81")
				r.log.wantOnce(t, "consul denies access", "consul permits access again")
			})
	})
}

func TestHonestEmptyFromTheServersIsPublished(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20)}, func(t *testing.T, r *rig) { r.want(t, "web:") })
}

func TestErrorNeverEmptiesASet(t *testing.T) {
	tests := map[string]reply{
		"500":              status(500, "No cluster leader"),
		"503":              status(503, "error reading from server: EOF"),
		"429":              status(429, "Your IP is issuing too many concurrent connections"),
		"403":              status(403, "ACL not found"),
		"404":              status(404, "Invalid URL path"),
		"400":              status(400, "Invalid query parameter"),
		"302":              status(302, ""),
		"204":              status(204, ""),
		"refused filter":   status(500, `Failed to create boolean expression evaluator: Selector "x" is not valid`),
		"no path":          status(500, "No path to datacenter"),
		"EOF":              fails(io.EOF),
		"not JSON":         raw("30", "<html>"),
		"not a list":       raw("30", "{}"),
		"null":             raw("30", "null"),
		"nothing":          raw("30", ""),
		"two lists":        raw("30", "[][]"),
		"half a list":      raw("30", `[{"Node":{`),
		"broken off":       truncated,
		"endless":          endless,
		"port is a string": raw("30", `[{"Service":{"Port":"80"}}]`),
		"no index":         raw("", "[]"),
		"absurd index":     raw("99999999999999999999", "[]"),
		"negative index":   raw("-1", "[]"),
		"filtered by ACLs": filteredEmpty,
		"headers never":    hang,
		"endless error": func(*http.Request) (*http.Response,
			error) {
			return response(500, nil, &repeat{text: "no "}), nil
		},
		"index back to zero":  raw("0", "[]"),
		"index back to one":   raw("1", "[]"),
		"empty, equal index":  raw("20", "[]"),
		"empty, higher index": raw("21", "[]"),
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			// The queries without an index get errors, because the source would believe their empty lists.
			replies := []reply{ok(20, "a 80"), bad, status(500, "No known Consul servers"),
				status(500, "No known Consul servers")}
			bubble(t, 20*time.Second, ConsulOptions{ProbeInterval: -1}, replies[:],
				func(t *testing.T, r *rig) { r.want(t, webA) })
		})
	}
}

func TestErrorStartsFromTheServersAgain(t *testing.T) {
	bubble(t, time.Minute, ConsulOptions{}, []reply{ok(20, "a 80"), fails(io.EOF), fails(io.EOF), ok(3, "b 81")},
		func(t *testing.T, r *rig) {
			r.want(t, webA, webB)
			if got, want := r.fake.indexes(), `"" "20" "" "" "3"`; got[:len(want)] != want {
				t.Errorf("indexes %s, want %s", got, want)
			}
		})
}

func TestEqualIndexWithOtherContentIsPublished(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20, "a 80"), ok(20, "b 81")},
		func(t *testing.T, r *rig) { r.want(t, webA, webB) })
}

func TestOtherOrderIsNotPublished(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20, "a 80", "b 81"), ok(21, "b 81", "a 80")},
		func(t *testing.T, r *rig) {
			r.want(t, webA+" n/b=10.0.0.1:81")
			if s := r.status(); s.Queries != 3 {
				t.Errorf("%d queries, want 3", s.Queries)
			}
		})
}

func TestServicesShareAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}}
		r := start(t, f, ConsulOptions{Datacenter: "dc1", Watches: []Watch{
			{Service: "one", Query: Query{Service: "web", Tags: []string{"x", "Y", "x"}}},
			{Service: "two", Query: Query{Service: "Web", Tags: []string{"y", "X"}, Datacenter: "dc1"}},
		}})
		time.Sleep(time.Second)
		r.want(t, "one: n/a=10.0.0.1:80", "two: n/a=10.0.0.1:80")
		if r.calls != 2 || len(f.asks()) != 2 || len(r.consul.Snapshot()) != 1 {
			t.Errorf("%d updates and %d queries of %d watches, want 2, 2, 1", r.calls, len(f.asks()),
				len(r.consul.Snapshot()))
		}
		r.stop()
	})
}

func TestHungQueryEndsAtItsDeadline(t *testing.T) {
	o := ConsulOptions{Wait: 32 * time.Second, ProbeInterval: -1}
	bubble(t, 2*time.Minute, o, []reply{ok(20, "a 80"), hang, ok(21, "b 81")}, func(t *testing.T, r *rig) {
		r.want(t, webA, webB)
		asks := r.fake.asks()
		took := asks[2].at.Sub(asks[1].at)
		least, most := 28*time.Second+15*time.Second, 36*time.Second+3*time.Second+15*time.Second
		if took < least || took > most {
			t.Errorf("asked again after %v, want %v to %v", took, least, most)
		}
	})
}

func TestNothingIsAskedInAHotLoop(t *testing.T) {
	tests := map[string]reply{
		"index moves for ever":   nil,
		"index stands still":     ok(7, "a 80"),
		"index zero":             ok(0, "a 80"),
		"error":                  fails(errors.New("connection refused")),
		"refused":                status(400, "no"),
		"empty":                  ok(7),
		"highest possible index": raw(strconv.FormatUint(1<<64-1, 10), "[]"),
	}
	for name, always := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{always: always}
				if always == nil {
					n := 0
					f.always = func(*http.Request) (*http.Response,
						error) {
						n++
						return ok(n, fmt.Sprintf("a %d", n))(nil)
					}
				}
				r := start(t, f, ConsulOptions{})
				time.Sleep(100 * time.Second)
				most := 511
				if always == nil { // each answer is new
					most = 5110
				}
				if n := len(f.asks()); n > most {
					t.Errorf("%d queries in 100 s", n)
				}
				r.stop()
				if b := r.consul.watches[0].state; len(b.out)+len(b.vanished) > maxVanished {
					t.Errorf("%d endpoints that have left are kept in mind, and %d that have vanished",
						len(b.out), len(b.vanished))
				}
			})
		})
	}
}

func TestServersAreAskedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{always: func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Has("index") {
				return after(30*time.Second, ok(20, "a 80"))(req)
			}
			return ok(20, "a 80")(req)
		}}
		r := start(t, f, ConsulOptions{Resync: 5 * time.Minute})
		time.Sleep(time.Hour)
		n := 0
		for _, a := range f.asks() {
			if a.index == "" {
				n++
			}
		}
		if n < 9 || n > 14 {
			t.Errorf("%d queries without index in an hour, want about 11", n)
		}
		r.want(t, webA)
		r.stop()
	})
}

func TestCancelFreesPromptly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watches []Watch
		for i := range 50 {
			watches = append(watches, Watch{Service: fmt.Sprint("s", i)})
		}
		r := start(t, &fake{}, ConsulOptions{Watches: watches})
		time.Sleep(25 * time.Millisecond) // some watches wait, others have not begun
		begin := time.Now()
		r.cancel()
		if err := <-r.done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Run took %v to end", d)
		}
		r.done <- nil
		if err := r.consul.Run(t.Context(), r.recorder); err == nil {
			t.Error("second Run did not fail")
		}
	})
}

func TestFirstQueriesAreSpreadOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watches []Watch
		for i := range 100 {
			watches = append(watches, Watch{Service: fmt.Sprint("s", i)})
		}
		f := &fake{}
		begin := time.Now()
		r := start(t, f, ConsulOptions{Watches: watches})
		time.Sleep(time.Second)
		asks := f.asks()
		if d := asks[len(asks)-1].at.Sub(begin); len(asks) != 100 || d < 99*rampStep {
			t.Errorf("%d queries within %v", len(asks), d)
		}
		r.stop()
	})
}

// The lag counts new sets, from the answer until all services have the set.
func TestLagIsCounted(t *testing.T) {
	replies := []reply{ok(20, "a 80"), after(time.Second, ok(21, "a 80")), after(time.Second, ok(22, "b 81"))}
	bubble(t, 5*time.Second, ConsulOptions{}, replies, func(t *testing.T, r *rig) {
		r.want(t, webA, webB)
		lag := r.consul.Lag()
		if lag.Buckets[0] != 2 || lag.Sum != 0 { // changes take no time in a synctest bubble
			t.Errorf("got %+v, want two in no time", lag)
		}
	})
	var l lag
	l.observe(2 * time.Millisecond)
	l.observe(time.Hour)
	if l.is.Buckets[4] != 1 || l.is.Buckets[lagBuckets-1] != 1 || l.is.Sum != time.Hour+2*time.Millisecond {
		t.Errorf("got %+v", l.is)
	}
}

func TestQueriesAsText(t *testing.T) {
	for want, q := range map[string]Query{
		"web": {Service: "web"},
		`web tags=a,b filter=Service.Meta.v == "2" dc=dc2 peer=p near=_agent statuses=passing,warning`: {
			Service: "web", Tags: []string{"b", "A"}, Filter: ` Service.Meta.v == "2" `, Datacenter: "dc2", Peer: "p",
			Near: "_agent", Statuses: []string{"warning", "passing"},
		},
		"prepared query near-web": {Service: "web", Prepared: "near-web"},
	} {
		if got := q.normalize("").String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
