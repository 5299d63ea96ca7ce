package discovery

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A chronicle collects the events about troubles.
type chronicle struct {
	mu     sync.Mutex
	events []Event
}

func (c *chronicle) add(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Kind == EventStale || e.Kind == EventRecovered {
		c.events = append(c.events, e)
	}
}

// said returns the events as lines, with "TIME" in place of times of day, and forgets them.
func (c *chronicle) said() (lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		text := e.Text
		if before, rest, is := strings.Cut(text, " since "); is {
			_, rest, _ = strings.Cut(rest, " ")
			text = before + " since TIME " + rest
		}
		lines = append(lines, fmt.Sprintf("%s %d: %s", e.Kind, len(e.Services), text))
	}
	c.events = nil
	return lines
}

// watching runs a source with a Consul that answers as reply says, which gets the service and the query.
func watching(t *testing.T, watches []Watch, answer func(service string, req *http.Request) reply) (*rig, *chronicle) {
	t.Helper()
	c := &chronicle{}
	f := &fake{always: func(req *http.Request) (*http.Response, error) {
		_, service, _ := strings.Cut(req.URL.Path, "/service/")
		if bad := answer(service, req); bad != nil {
			return bad(req)
		}
		if req.URL.Query().Has("index") {
			return after(time.Second, ok(20, "a 80"))(req)
		}
		return ok(20, "a 80")(req)
	}}
	return start(t, f, ConsulOptions{Watches: watches, OnEvent: c.add, MaxWatches: -1}), c
}

func wantSaid(t *testing.T, c *chronicle, lines ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(lines, c.said()); diff != "" {
		t.Errorf("at %v events differ (-want +got):\n%s", time.Now(), diff)
	}
}

// An outage of Consul is one event and one line for all services, and so is its end.
func TestAnOutageIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watches []Watch
		for i := range 299 {
			watches = append(watches, Watch{Service: fmt.Sprintf("s%03d", i)})
		}
		watches = append(watches, Watch{Service: "shares", Query: Query{Service: "s000"}})
		var lost bool // no two goroutines of the bubble use it at a time
		var mu sync.Mutex
		begin := time.Now()
		set := func(now bool) { mu.Lock(); defer mu.Unlock(); lost = now }
		r, c := watching(t, watches, func(string, *http.Request) reply {
			mu.Lock()
			defer mu.Unlock()
			switch since := time.Since(begin); {
			case lost && since < 5100*time.Millisecond:
				return fails(io.EOF)
			case lost:
				return fails(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		wantSaid(t, c)
		set(true)
		time.Sleep(time.Minute)
		wantSaid(t, c, "stale 300: Consul does not answer since TIME (dial: connection refused); "+
			"300 services keep their last endpoints: s000, s001, s002, s003, s004, s005, s006, s007 and 292 more")
		set(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		const again = "recovered 300: Consul answers again after 1m"
		if got := c.said(); len(got) != 1 || !strings.HasPrefix(got[0], again) ||
			!strings.HasSuffix(got[0], "; 300 services are fresh: s000, s001, s002, s003, s004, s005, s006, s007 "+
				"and 292 more") {
			t.Errorf("got %q, want that 300 services are fresh", got)
		}
		if n := strings.Count(r.log.String(), "\n"); n != 2 {
			t.Errorf("%d lines, want 2:\n%s", n, r.log)
		}
		r.log.wantOnce(t, "consul is lost, endpoints stay as they are: services=300 names=",
			"consul answers again: services=300")
		r.stop()
	})
}

// What concerns one service alone is that service's event, though others have no trouble or another one. A datacenter
// and a peer are a cause each.
func TestEachCauseIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watches := []Watch{
			{Service: "filter", Query: Query{Filter: "Nope == 1"}}, {Service: "fine"}, {Service: "right"},
			{Service: "a2", Query: Query{Service: "a", Datacenter: "dc2"}},
			{Service: "b2", Query: Query{Service: "b", Datacenter: "dc2"}},
			{Service: "a3", Query: Query{Service: "a", Datacenter: "dc3"}},
		}
		begin := time.Now()
		r, c := watching(t, watches, func(service string, req *http.Request) reply {
			q := req.URL.Query()
			if since := time.Since(begin); since < 5*time.Second || since > time.Minute {
				return nil
			}
			switch {
			case service == "filter":
				return status(500, `Failed to create boolean expression evaluator: Selector "Nope" is not valid`)
			case service == "right":
				return status(403, "Permission denied")
			case q.Get("dc") != "":
				return status(500, "No path to datacenter")
			}
			return nil
		})
		time.Sleep(50 * time.Second)
		synctest.Wait()
		got := c.said()
		slices.Sort(got)
		want := []string{
			`stale 1: Consul cannot answer for datacenter dc3 since TIME ` +
				`(consul answered 500: No path to datacenter); the service keeps its last endpoints`,
			`stale 1: Consul denies access since TIME (consul answered 403: Permission denied); ` +
				`the service keeps its last endpoints`,
			`stale 1: Consul refuses the query since TIME (consul answered 500: Failed to create boolean expression ` +
				`evaluator: Selector "Nope" is not valid); the service keeps its last endpoints`,
			`stale 2: Consul cannot answer for datacenter dc2 since TIME ` +
				`(consul answered 500: No path to datacenter); 2 services keep their last endpoints: a2, b2`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("differs (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := c.said(); len(got) != 4 {
			t.Errorf("at the end: %q, want four events", got)
		}
		r.log.wantOnce(t,
			"cannot answer a query, the services' endpoints stay as they are: services=2 names=\"a2, b2\"",
			"consul answers the query: services=2 names=\"a2, b2\"")
		r.stop()
	})
}

// A service that is denied later has an event of its own, and so has one that is permitted again although others are
// not.
func TestServicesEnterAndLeaveATroubleApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		denied := map[string]bool{}
		deny := func(service string, is bool) { mu.Lock(); defer mu.Unlock(); denied[service] = is }
		watches := []Watch{{Service: "a"}, {Service: "b"}, {Service: "c"}}
		r, c := watching(t, watches, func(s string, _ *http.Request) reply {
			mu.Lock()
			defer mu.Unlock()
			if denied[s] {
				return status(403, "Permission denied")
			}
			return nil
		})
		const begins = "stale 1: Consul denies access since TIME (consul answered 403: Permission denied); " +
			"the service keeps its last endpoints"
		deny("a", true)
		time.Sleep(20 * time.Second)
		wantSaid(t, c, begins)
		deny("b", true)
		time.Sleep(40 * time.Second)
		wantSaid(t, c, begins)
		deny("a", false)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if got := c.said(); len(got) != 1 || !strings.HasSuffix(got[0], "; the service is fresh") {
			t.Errorf("got %q, want that a is fresh", got)
		}
		r.log.wantOnce(t, "consul permits access again: services=1 names=a", "queries_still_failing=1")
		deny("b", false)
		time.Sleep(40 * time.Second)
		r.log.wantOnce(t, "consul permits access again: services=1 names=b")
		r.stop()
	})
}

// An outage that is over soon is no news, and a service that is no longer wanted has not recovered.
func TestShortOrUnwantedTroubleIsNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var soon atomic.Int32 // failures that are over soon, because the next attempt succeeds
		r, c := watching(t, []Watch{{Service: "a"}, {Service: "gone"}}, func(s string, _ *http.Request) reply {
			since := time.Since(begin)
			if since > 5*time.Second && soon.Add(1) <= 2 || since > time.Minute && s == "gone" {
				return fails(io.EOF)
			}
			return nil
		})
		time.Sleep(50 * time.Second)
		wantSaid(t, c)
		time.Sleep(time.Minute)
		wantSaid(t, c, "stale 1: Consul does not answer since TIME (EOF); the service keeps its last endpoints")
		if err := r.consul.Apply([]Watch{{Service: "a"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantSaid(t, c)
		r.stop()
	})
}

// A reload that mends a query ends its trouble, although another watch takes over. A service that the reload removes
// has not recovered.
func TestAMendedQueryHasRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watches := func(filter string, services ...string) (all []Watch) {
			for _, name := range services {
				all = append(all, Watch{Service: name, Query: Query{Service: name, Filter: filter}})
			}
			return all
		}
		r, c := watching(t, watches("bad", "a", "b", "gone"), func(_ string, req *http.Request) reply {
			if req.URL.Query().Get("filter") == "bad" {
				return status(500, `Failed to create boolean expression evaluator: Selector "Nope" is not valid`)
			}
			return nil
		})
		time.Sleep(50 * time.Second)
		wantSaid(t, c, "stale 3: Consul refuses the query since TIME (consul answered 500: Failed to create boolean "+
			`expression evaluator: Selector "Nope" is not valid); 3 services have no endpoints until this ends: `+
			"a, b, gone")
		if err := r.consul.Apply(append(watches("good", "a"), watches("bad", "b")...)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantSaid(t, c, "recovered 1: Consul answers the query after 50s; the service is fresh")
		if err := r.consul.Apply(watches("good", "a", "b")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantSaid(t, c, "recovered 1: Consul answers the query after 1m50s; the service is fresh")
		if err := r.consul.Apply(watches("good", "a", "b", "gone")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantSaid(t, c)
		r.stop()
	})
}
