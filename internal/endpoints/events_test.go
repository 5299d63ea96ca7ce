package endpoints

import (
	"slices"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

func TestEventsAreBounded(t *testing.T) {
	l := NewEvents()
	for range 3 * MaxEvents {
		l.Add(Event{Kind: KindReload})
	}
	events, next, _ := l.After(0, "", 1<<20)
	if len(events) != MaxEvents || next != 3*MaxEvents || events[0].Seq != 2*MaxEvents+1 {
		t.Errorf("got %d events up to %d", len(events), next)
	}
	if events, _, _ = l.After(next-2, "", 1); len(events) != 1 || events[0].Seq != next {
		t.Errorf("a limit leaves the newest: got %+v", events)
	}
}

func TestInstancesAndEjectionsAreEvents(t *testing.T) {
	l := NewEvents()
	l.Discovered(discovery.Event{
		Services: []string{"api", "web"}, Kind: discovery.EventOut, Instance: "n/a", Text: "check is critical",
	})
	l.Discovered(discovery.Event{
		Services: []string{"web"}, Kind: discovery.EventHeld, Instance: "n/b", Text: "gone",
	})
	l.Health(lb.HealthChange{
		Service: "web", Endpoint: "n/c", Ejected: true, Cause: lb.Refused, TryIn: 1234 * time.Millisecond,
	})
	l.Health(lb.HealthChange{Service: "web", Endpoint: "n/c"})
	l.Denial(lb.DenialChange{Service: "web", Endpoint: "n/d", Denied: true, Why: "not you"})
	l.Denial(lb.DenialChange{Service: "web", Endpoint: "n/d"})
	events, _, _ := l.After(0, "web", MaxEvents)
	var got []string
	for _, e := range events {
		got = append(got, string(e.Kind)+" "+e.Endpoint+" "+e.Text)
	}
	want := []string{
		"out n/a n/a: check is critical",
		"held n/b n/b: gone",
		"ejected n/c n/c is ejected: refused; it is tried again in 1.23s",
		"returned n/c n/c can be reached again",
		"denied n/d n/d denies connections: not you",
		"allowed n/d n/d answers again, after it has denied connections",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A failure of a source is one event for all services that it concerns. The event of one service has its name.
func TestAFailureOfASourceIsOneEvent(t *testing.T) {
	l := NewEvents()
	several, one := []string{"api", "web"}, []string{"web"}
	l.Discovered(discovery.Event{Services: several, Kind: discovery.EventStale, Text: "lost"})
	l.Discovered(discovery.Event{Services: one, Kind: discovery.EventRecovered, Text: "fresh"})
	got, _, _ := l.After(0, "web", MaxEvents)
	if len(got) != 2 || got[0].Kind != KindStale || got[0].Service != "" || !slices.Equal(got[0].Services, several) ||
		got[1].Kind != KindRecovered || got[1].Service != "web" || got[1].Services != nil || got[1].Text != "fresh" {
		t.Errorf("got %+v", got)
	}
}

// The next event wakes a waiting reader. The reader then continues after the last event that it has seen.
func TestEventsWakeWhoeverWaits(t *testing.T) {
	l := NewEvents()
	events, next, more := l.After(0, "", MaxEvents)
	if len(events) != 0 || next != 0 {
		t.Errorf("got %v up to %d, want nothing", events, next)
	}
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		<-more
	}()
	l.Add(Event{Kind: KindReload, Service: "web"})
	<-woken
	events, next, _ = l.After(next, "", MaxEvents)
	if len(events) != 1 || events[0].Seq != 1 || events[0].Time.IsZero() {
		t.Errorf("got %+v, want the first event, with a time", events)
	}
	l.Add(Event{Kind: KindReload, Service: "dns"})
	if events, next, _ = l.After(next, "web", MaxEvents); len(events) != 0 || next != 2 {
		t.Errorf("got %+v up to %d, want none of web, up to 2", events, next)
	}
}

// Event numbers of a process are above those of an earlier process, so a client can continue.
func TestEventsBeginAboveThoseOfAnEarlierProcess(t *testing.T) {
	for _, base := range []uint64{1, MaxEvents, 5 * MaxEvents} {
		l := NewEvents()
		l.Begin(base, nil)
		if events, next, _ := l.After(0, "", MaxEvents); len(events) != 0 || next != base || l.Last() != base {
			t.Errorf("before the first: got %v up to %d", events, next)
		}
		for range 3 {
			l.Add(Event{Kind: KindReload})
		}
		for _, tt := range []struct {
			seq  uint64
			want int
		}{{0, 3}, {base - 1, 3}, {base, 3}, {base + 2, 1}, {base + 3, 0}, {base + 4, 3}} {
			events, next, _ := l.After(tt.seq, "", MaxEvents)
			if len(events) != tt.want || next != base+3 {
				t.Errorf("after %d, beginning with %d: got %+v up to %d, want %d", tt.seq, base+1, events, next,
					tt.want)
			}
		}
	}
}
