package discovery

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A narrow is an agent that holds queries for their wait, and allows only a few at once.
type narrow struct {
	most    int
	backend string // backend of answers to queries with an index

	mu      sync.Mutex
	now     int // running queries
	highest int
	refused int
	ended   int // cancelled queries
}

func (n *narrow) reply(req *http.Request) (*http.Response, error) {
	n.mu.Lock()
	if n.now >= n.most {
		n.refused++
		n.mu.Unlock()
		return status(429, "Your IP is issuing too many concurrent connections")(req)
	}
	n.now++
	n.highest = max(n.highest, n.now)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.now--
		n.mu.Unlock()
	}()
	v := req.URL.Query()
	d := 2 * time.Millisecond
	if v.Has("index") {
		d, _ = time.ParseDuration(v.Get("wait"))
	}
	if !consul.Sleep(req.Context(), d, nil) {
		n.mu.Lock()
		n.ended++
		n.mu.Unlock()
		return nil, req.Context().Err()
	}
	resp, err := ok(20, "a 80")(req)
	resp.Header.Set("X-Consul-Query-Backend", n.backend)
	return resp, err
}

func (n *narrow) figures() (now, highest, refused, ended int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now, n.highest, n.refused, n.ended
}

func manyWatches(n int) []Watch {
	var all []Watch
	for i := range n {
		all = append(all, Watch{Service: fmt.Sprint("s", i)})
	}
	return all
}

// longestGap returns the longest time between two queries for a service, from begin until now.
func longestGap(f *fake, begin time.Time) time.Duration {
	last, longest := map[string]time.Time{}, time.Duration(0)
	note := func(service string, at time.Time) {
		before, known := last[service]
		if !known {
			before = begin
		}
		if at.After(begin) {
			longest = max(longest, at.Sub(before))
		}
		last[service] = at
	}
	asks := f.asks()
	for _, a := range asks {
		note(a.service, a.at)
	}
	for service := range last {
		note(service, time.Now())
	}
	return longest
}

// wantTurns checks that the given number of services soon have their first set, and that they take turns for a minute.
func wantTurns(t *testing.T, n *narrow, f *fake, r *rig, services int) {
	t.Helper()
	time.Sleep(3 * time.Second)
	if got := len(r.got()); got != services {
		t.Errorf("%d sets after 3 s, want %d", got, services)
	}
	time.Sleep(time.Minute)
	if gap := longestGap(f, time.Now().Add(-time.Minute)); gap > maxStale {
		t.Errorf("a service was without a query for %v", gap)
	}
	if _, highest, refused, _ := n.figures(); highest > 150 || refused > 0 {
		t.Errorf("%d queries at once, %d refused", highest, refused)
	}
}

func TestMoreWatchesThanSlotsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 200, backend: api.QueryBackendStreaming}
		f := &fake{always: n.reply}
		r := start(t, f, ConsulOptions{Watches: manyWatches(1000)})
		wantTurns(t, n, f, r, 1000)
		if qps := float64(len(f.asks())-2000) / 60; qps > 260 {
			t.Errorf("%.0f queries a second", qps)
		}
		r.log.wantOnce(t, "take turns")
		r.stop()
	})
}

// A reverse proxy may speak HTTP/1 over TLS. Over HTTP/1, each query takes a connection.
func TestHTTPSWithoutHTTP2TakesTurns(t *testing.T) {
	overHTTP1 := func(r reply) reply {
		return func(req *http.Request) (*http.Response, error) {
			if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
				trace.GotConn(httptrace.GotConnInfo{})
			}
			resp, err := r(req)
			if err == nil {
				resp.ProtoMajor = 1
			}
			return resp, err
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 200, backend: api.QueryBackendStreaming}
		f := &fake{always: overHTTP1(n.reply), ping: overHTTP1(status(301, ""))}
		r := start(t, f, ConsulOptions{Address: "https://127.0.0.1:8501", Watches: manyWatches(400)})
		wantTurns(t, n, f, r, 400)
		r.stop()
	})
}

// A watch that is retired while it waits for a slot sends no more queries.
func TestRetiredWatchesAskNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 200, backend: "blocking-query"} // continues after a query was cancelled
		f := &fake{always: n.reply}
		r := start(t, f, ConsulOptions{MaxWatches: 10, Watches: manyWatches(100)})
		time.Sleep(time.Minute)
		if err := r.consul.Apply(manyWatches(1)); err != nil {
			t.Fatal(err)
		}
		before := len(f.asks())
		time.Sleep(10 * time.Second)
		gone := 0
		for _, a := range f.asks()[before:] {
			if a.service != "s0" {
				gone++
			}
		}
		if gone > 0 {
			t.Errorf("%d queries for services that are gone", gone)
		}
		r.stop()
	})
}

func TestAsManyWatchesAsSlotsWaitInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 200, backend: api.QueryBackendStreaming}
		f := &fake{always: n.reply}
		r := start(t, f, ConsulOptions{Watches: manyWatches(150)})
		time.Sleep(35 * time.Second)
		if got := len(f.asks()); got != 301 {
			t.Errorf("%d queries, want two each, and one that asks what kind of agent it is", got)
		}
		if got := r.log.String(); got != "" {
			t.Error(got)
		}
		r.stop()
	})
}

// When a reload brings more watches than slots, the watches begin to take turns. The next reload removes the extra
// watches and ends the turns.
func TestReloadWithMoreWatchesThanSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 200, backend: api.QueryBackendStreaming}
		f := &fake{always: n.reply}
		r := start(t, f, ConsulOptions{Watches: manyWatches(150)})
		time.Sleep(time.Second)
		if err := r.consul.Apply(manyWatches(300)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // much less than a turn
		if got := len(r.got()); got != 300 {
			t.Errorf("%d sets after half a second, want 300", got)
		}
		if s := r.consul.Snapshot()[0]; s.Errors != 0 {
			t.Errorf("a query that was ended for a turn counts as an error: %+v", s)
		}
		if err := r.consul.Apply(manyWatches(100)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		before := len(f.asks())
		time.Sleep(20 * time.Second)
		if got := len(f.asks()) - before; got > 0 {
			t.Errorf("%d queries in 20 s without turns", got)
		}
		r.log.wantOnce(t, "take turns", "each query to consul has its own connection again")
		r.stop()
	})
}

// The number of slots falls when the agent refuses connections, and rises when the agent allows more. Few queries are
// refused.
func TestSlotsFollowWhatTheAgentAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &narrow{most: 5, backend: api.QueryBackendStreaming}
		f := &fake{always: n.reply}
		r := start(t, f, ConsulOptions{Watches: manyWatches(40)})
		time.Sleep(20 * time.Second)
		if got := len(r.got()); got != 40 {
			t.Errorf("%d sets after 20 s, want 40", got)
		}
		_, _, before, _ := n.figures()
		begin := time.Now()
		time.Sleep(10 * time.Minute)
		if _, _, after, _ := n.figures(); after-before > 40 {
			t.Errorf("%d refusals in ten minutes, after %d", after-before, before)
		}
		if gap := longestGap(f, begin); gap > maxStale+2*time.Second { // a refused query is repeated after up to 2 s
			t.Errorf("a service was without a query for %v", gap)
		}
		var throttled uint64
		for _, s := range r.consul.Snapshot() {
			throttled += s.Throttled
		}
		if throttled == 0 {
			t.Error("refusals are not counted")
		}
		n.mu.Lock()
		n.most = 200
		n.mu.Unlock()
		time.Sleep(24 * time.Hour)
		before = len(f.asks())
		time.Sleep(20 * time.Second)
		if got := len(f.asks()) - before; got > 45 {
			t.Errorf("%d queries in 20 s when there is room for all", got)
		}
		r.log.wantOnce(t, "take turns", "each query to consul has its own connection again")
		r.stop()
	})
}

// An agent that allows few connections has some left for other programs, except while slots tries a higher limit.
func TestSlotsLeaveRoomForOtherPrograms(t *testing.T) {
	for most, left := range map[int]int{5: 2, 20: 5} {
		synctest.Test(t, func(t *testing.T) {
			n := &narrow{most: most, backend: api.QueryBackendStreaming}
			r := start(t, &fake{always: n.reply}, ConsulOptions{Watches: manyWatches(60)})
			time.Sleep(30 * time.Minute) // by now, tries of a higher limit are maxRetry apart
			full := 0
			const samples = 4000
			for range samples {
				time.Sleep(time.Second)
				if now, _, _, _ := n.figures(); now > most-left {
					full++
				}
			}
			if full > samples/10 { // a try lasts for the wait of a query, less than a tenth of maxRetry
				t.Errorf("of %d connections, %d were not left to others %d of %d times", most, left, full, samples)
			}
			r.stop()
		})
	}
}

// The agent refuses several queries at once. Each gives its slot back only after all of them were refused.
func TestSlotsCountNoRefusedQueryAsAllowed(t *testing.T) {
	const asked, allowed = 24, 20
	s := newSlots(asked, (&journal{}).logger(0))
	for range asked {
		if err := s.acquire(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	for range asked - allowed {
		s.refuse(true)
	}
	if want := allowed - reserve(allowed); s.limit > want || s.held != allowed {
		t.Errorf("the limit is %d and %d slots are held, want at most %d and %d", s.limit, s.held, want, allowed)
	}
}

// A higher limit that the agent allows is used for a moment only: others may need connections too.
func TestSlotsLeaveRoomAfterATryThatSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(150, (&journal{}).logger(0))
		s.limit, s.next, s.retry, s.watches, s.short = 10, time.Now(), maxRetry, 60, true
		once := func() {
			time.Sleep(maxStale + time.Second)
			if err := s.acquire(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			s.release(false)
		}
		for _, want := range []int{20, 15, 15} {
			if once(); s.limit != want {
				t.Errorf("the limit is %d, want %d", s.limit, want)
			}
		}
	})
}

// A query that the agent has passed on to its servers keeps its connection until its wait is over. Such a query is
// therefore not cancelled.
func TestReloadLeavesQueriesThatCannotBeCancelled(t *testing.T) {
	for _, tt := range []struct {
		backend string
		ended   int // cancelled at once
	}{{api.QueryBackendStreaming, 20}, {"blocking-query", 0}} {
		t.Run(tt.backend, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &narrow{most: 200, backend: tt.backend}
				f := &fake{always: n.reply}
				r := start(t, f, ConsulOptions{Watches: manyWatches(20)})
				time.Sleep(100 * time.Second)
				if err := r.consul.Apply(nil); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if now, _, _, ended := n.figures(); ended != tt.ended || now != 20-tt.ended {
					t.Errorf("%d queries were cancelled and %d run on, want %d and %d",
						ended, now, tt.ended, 20-tt.ended)
				}
				published, asked := len(r.got()), len(f.asks())
				time.Sleep(time.Minute)
				if now, _, _, _ := n.figures(); now != 0 || len(f.asks()) != asked || len(r.got()) != published {
					t.Errorf("%d queries under way, %d asked and %d sets published after all was removed", now,
						len(f.asks())-asked,
						len(r.got())-published)
				}
				r.stop()
			})
		})
	}
}

func TestSlotsAreHandedOverInOrderButTheUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, (&journal{}).logger(0))
		if err := s.acquire(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 5)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			go func() {
				mine := t.Context()
				if i == 2 {
					mine = ctx
				}
				if s.acquire(mine, i == 3) == nil {
					order <- i
					s.release(i == 3)
				}
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		s.release(false)
		synctest.Wait()
		close(order)
		var got []int
		for i := range order {
			got = append(got, i)
		}
		if fmt.Sprint(got) != "[3 0 1 4]" || s.held != 0 || s.turns != 0 || len(s.queue) != 0 {
			t.Errorf("got %v, %d held, %d waiting", got, s.held, len(s.queue))
		}
	})
}
