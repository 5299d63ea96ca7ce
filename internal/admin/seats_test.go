package admin

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/endpoints"
)

// Streams of all kinds together take at most half of the connections, so that operators can still send requests.
func TestStreamsAreBounded(t *testing.T) {
	const most = 8
	h := serve(t, Options{MaxConnections: most, times: unhurried}, "web")
	streams := []string{"/v1/watch", "/v1/events?wait=55"}
	for i := range most / 2 {
		h.call("tcp", "").say("GET " + streams[i%2] + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	h.eventually("all have begun", func() bool {
		h.streams.mu.Lock()
		defer h.streams.mu.Unlock()
		return h.streams.taken == most/2
	})
	for _, path := range streams {
		code, text := h.ask("GET", path, "")
		if code != 503 || !strings.Contains(text, "4 streams are open already") {
			t.Errorf("%s: got %d %s, want 503", path, code, text)
		}
	}
	for range 2 * most {
		c := h.call("tcp", "")
		if code := c.get("/v1/events"); code != 200 { // this request waits for nothing
			t.Errorf("got %d, want 200", code)
		}
	}
	h.events.Add(endpoints.Event{Kind: endpoints.KindReload}) // this answers the two requests that wait for events
	h.eventually("they have ended", func() bool {
		h.streams.mu.Lock()
		defer h.streams.mu.Unlock()
		return h.streams.taken == most/4
	})
}

// Reloads wait for each other, and the number of waiting reloads is limited.
func TestReloadsThatWaitAreBounded(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	reload := func(context.Context) (string, error) { began <- struct{}{}; <-release; return "", nil }
	upgrade := func(context.Context) (Upgrade, error) { return Upgrade{}, nil }
	h := serve(t, Options{MaxConnections: 8, Reload: reload, Upgrade: upgrade}, "web")
	done := make(chan error, 1)
	go func() { done <- h.client.Post(t.Context(), "/v1/reload", nil, nil) }()
	<-began
	for _, path := range []string{"/v1/reload", "/v1/upgrade"} {
		if code, text := h.ask("POST", path, ""); code != 503 || !strings.Contains(text, "reloads and upgrades") {
			t.Errorf("%s: got %d %s, want 503", path, code, text)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A peer on another host gets at most half of the seats. Peers on this host may take all.
func TestSeatsAreShared(t *testing.T) {
	s := newSeats("streams", 8)
	slots := newSlots(8, 0, nil)
	from := func(p peer, local bool) *http.Request {
		r, err := http.NewRequest("GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.WithContext(context.WithValue(t.Context(), connKey{}, &slotConn{slots: slots, peer: p, local: local}))
	}
	var leave []func()
	take := func(want int, p peer, local bool) {
		t.Helper()
		for n := 0; n <= want; n++ {
			f, err := s.take(from(p, local))
			if err != nil {
				if n != want {
					t.Errorf("%v has %d seats, want %d: %v", p, n, want, err)
				}
				return
			}
			leave = append(leave, f)
		}
		t.Errorf("%v has more than %d seats", p, want)
	}
	a, b := peer{netip.MustParsePrefix("10.0.0.1/32")}, peer{netip.MustParsePrefix("10.0.0.2/32")}
	take(4, a, false)
	take(4, b, false)
	take(0, peer{}, true)
	for _, f := range leave {
		f()
	}
	take(8, peer{}, true)
	if len(s.remote) != 0 || s.taken != 8 || s.counts() != 4 {
		t.Errorf("got %+v", s)
	}
}
