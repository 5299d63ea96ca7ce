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
	l.Instance(discovery.Event{Services: []string{"api", "web"}, Kind: discovery.EventOut, Instance: "n/a", Text: "check is critical"})
	l.Instance(discovery.Event{Services: []string{"web"}, Kind: discovery.EventHeld, Instance: "n/b", Text: "gone"})
	l.Health(lb.HealthChange{Service: "web", Endpoint: "n/c", Ejected: true, Cause: lb.Refused, TryIn: 1234 * time.Millisecond})
	l.Health(lb.HealthChange{Service: "web", Endpoint: "n/c"})
	events, _, _ := l.After(0, "web", MaxEvents)
	var got []string
	for _, e := range events {
		got = append(got, string(e.Kind)+" "+e.Endpoint+" "+e.Text)
	}
	want := []string{"out n/a n/a: check is critical", "held n/b n/b: gone", "ejected n/c n/c is left out: refused; it is tried again in 1.2s", "returned n/c n/c can be reached again"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
