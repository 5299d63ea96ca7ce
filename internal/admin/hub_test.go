package admin

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/endpoints"
)

func TestHubForgetsWhenNobodyWatches(t *testing.T) {
	h := newHub()
	h.enter()
	h.enter()
	h.publish([]Service{{Name: "web"}}, Status{})
	h.leave()
	if !h.watched() || len(h.services) != 1 {
		t.Errorf("got %+v while one watches", h)
	}
	h.leave()
	if h.watched() || len(h.services) != 0 || h.status != nil {
		t.Errorf("got %+v", h)
	}
}

// A stream that comes while others are open begins with their state, so that new streams cause no further looks.
func TestStreamsBeginWithWhatOthersHave(t *testing.T) {
	h := newHub()
	wanted := func() bool {
		select {
		case <-h.entered:
			return true
		default:
			return false
		}
	}
	if h.enter(); !wanted() {
		t.Error("the first stream does not ask for a look")
	}
	h.publish([]Service{{Name: "web"}}, Status{})
	if h.enter(); wanted() {
		t.Error("the second wants another look")
	}
	if c, status, _, _ := h.after(0); len(c.Services) != 1 || status == nil {
		t.Errorf("got %+v, %v", c, status)
	}
}

func TestChangesAreJSON(t *testing.T) {
	for _, c := range []changes{
		{Services: []json.RawMessage{}, Removed: []string{}},
		{Services: []json.RawMessage{[]byte(`{"name":"web"}`)}, Removed: []string{}},
		{Services: []json.RawMessage{[]byte(`{"name":"a"}`), []byte(`{"name":"b"}`)}, Removed: []string{"c", `"d<`}},
	} {
		want, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.text(); string(got) != string(want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A longer look is followed by a longer pause.
func TestLooksTakeAFifthOfAProcessor(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(1000, 0)
	var p pace
	if got := p.delay(now, 0); got != 0 {
		t.Errorf("the first look is delayed by %v", got)
	}
	for _, tt := range []struct{ took, after, gap, want time.Duration }{
		{5 * ms, 0, 0, 20 * ms},
		{5 * ms, 0, 100 * ms, 100 * ms},
		{5 * ms, 50 * ms, 0, 0},
		{300 * ms, 0, 100 * ms, 1200 * ms},
		{300 * ms, 1100 * ms, 0, 100 * ms},
	} {
		p.looked(now, tt.took)
		if got := p.delay(now.Add(tt.after), tt.gap); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

// Looks that take a second begin every five seconds, however many events happen.
func TestLooksKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, looks := benchServer(1), 0
		s.o.State.Balanced = func() map[string]Balanced {
			looks++
			time.Sleep(time.Second)
			return nil
		}
		s.hub.enter()
		s.running.Go(s.tick)
		for range 60 * 20 {
			time.Sleep(time.Second / 20)
			s.o.Events.Add(endpoints.Event{Kind: endpoints.KindReload})
		}
		s.stop()
		s.running.Wait()
		if looks < 10 || looks > 13 {
			t.Errorf("%d looks within a minute, want 12 or so", looks)
		}
	})
}

// BenchmarkStream measures the first event of a stream, with 500 services.
func BenchmarkStream(b *testing.B) {
	s := benchServer(500)
	h := newHub()
	h.enter()
	h.publish(s.o.State.services(), Status{})
	b.ReportAllocs()
	for b.Loop() {
		c, _, _, _ := h.after(0)
		if text := c.text(); len(text) < 500 {
			b.Fatalf("got %s", text)
		}
	}
}
