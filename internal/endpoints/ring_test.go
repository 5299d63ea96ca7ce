package endpoints

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/lb"
)

// textsAfter returns the texts of the events that concern a service; of all if it is empty.
func textsAfter(l *Events, seq uint64, service string) (texts []string) {
	events, _, _ := l.After(seq, service, 1<<20)
	for _, e := range events {
		texts = append(texts, e.Text)
	}
	return texts
}

// A service that flaps, and an outage that comes and goes, push out no event of other services.
func TestAStormOfOneServiceLeavesTheEventsOfOthers(t *testing.T) {
	l := NewEvents()
	l.Add(Event{Kind: KindDrained, Service: "quiet", Text: "drained"}, Event{Kind: KindReload, Text: "reloaded"})
	for i := range 5 * MaxEvents {
		l.Add(Event{Kind: KindEjected, Service: "flaps", Text: fmt.Sprint(i)})
	}
	for i := range 5 * maxListed {
		l.Add(Event{Kind: KindStale, Services: []string{"flaps", "quiet"}, Text: fmt.Sprint(i)})
	}
	if got := textsAfter(l, 0, "quiet"); len(got) != 1+maxListed || got[0] != "drained" {
		t.Errorf("quiet has %q, want its drain, and the last %d of the outage", got, maxListed)
	}
	flaps := textsAfter(l, 0, "flaps")
	if want := MaxEvents - 2; len(flaps) != want || flaps[0] != fmt.Sprint(4*MaxEvents+2+maxListed) {
		t.Errorf("flaps has %d from %s, want the last %d", len(flaps), flaps[0], want)
	}
	if all := textsAfter(l, 0, ""); len(all) != MaxEvents || all[1] != "reloaded" {
		t.Errorf("%d events, the second is %q", len(all), all[1])
	}
}

// Of services that all have much to say, each has the same share, and its newest event at least.
func TestManyServicesShareTheRing(t *testing.T) {
	const services = 5000
	l := NewEvents()
	for round := range 3 {
		for i := range services {
			l.Add(Event{Kind: KindJoined, Service: fmt.Sprint(i), Text: fmt.Sprint(round)})
		}
	}
	of := map[string][]string{}
	events, _, _ := l.After(0, "", MaxEvents)
	for _, e := range events {
		of[e.Service] = append(of[e.Service], e.Text)
	}
	for i := range services {
		got := of[fmt.Sprint(i)]
		if n := len(got); n < 1 || n > 2 || got[n-1] != "2" {
			t.Fatalf("service %d has %q, want its newest one or two", i, got)
		}
	}
	if n := cap(l.ring.all); n > 2*(MaxEvents+spareEvents) {
		t.Errorf("the ring has room for %d events", n)
	}
}

// The ring does what its description says, compared with a plain implementation of it.
func TestRingAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l := NewEvents()
	var model []Event
	count := map[string]int{} // events in the model by service
	for i := range MaxEvents + 2*spareEvents {
		e := Event{Kind: KindJoined, Service: fmt.Sprint(random.ExpFloat64() * 3)[:1], Text: fmt.Sprint(i)}
		l.Add(e)
		e.Seq = l.Last()
		count[e.Service]++
		if model = append(model, e); len(model) > MaxEvents {
			most := slices.Max(slices.Collect(maps.Values(count)))
			at := slices.IndexFunc(model, func(e Event) bool { return count[e.Service] == most })
			count[model[at].Service]--
			model = slices.Delete(model, at, at+1)
		}
	}
	for _, seq := range []uint64{0, l.Last() - 3, l.Last() - MaxEvents, l.Last()} {
		for _, service := range []string{"", "0", "4", "none"} {
			var want []string
			for _, e := range model {
				if e.Seq > seq && (service == "" || e.Service == service) {
					want = append(want, e.Text)
				}
			}
			if diff := cmp.Diff(want, textsAfter(l, seq, service)); diff != "" {
				t.Errorf("after %d, service %q (-want +got):\n%s", seq, service, diff)
			}
		}
	}
}

// An event of several services is an event of each of them, and of no other.
func TestAnEventOfSeveralServices(t *testing.T) {
	l := NewEvents()
	l.Add(Event{Kind: KindStale, Services: []string{"api", "web"}, Text: "lost"})
	for service, want := range map[string]int{"": 1, "api": 1, "web": 1, "dns": 0} {
		if got := textsAfter(l, 0, service); len(got) != want {
			t.Errorf("%q has %q, want %d", service, got, want)
		}
	}
}

// Another process continues with the events, even if it learns of them in another form.
func TestEventsGoOverToAnotherProcess(t *testing.T) {
	first := NewEvents()
	first.Begin(100, nil)
	first.Add(Event{Kind: KindDrained, Service: "web", Endpoint: "a", Text: "a is drained"},
		Event{Kind: KindStale, Services: []string{"api", "web"}, Text: "lost"})
	text, err := json.Marshal(first.Export())
	if err != nil {
		t.Fatal(err)
	}
	var received []Event
	if err := json.Unmarshal(text, &received); err != nil {
		t.Fatal(err)
	}
	received = append(received, Event{Seq: 50, Kind: KindLeft, Text: "out of order"}, Event{Seq: 103},
		Event{Seq: 1001, Kind: KindLeft, Text: "above what follows"})
	second := NewEvents()
	second.Begin(1000, received)
	second.Add(Event{Kind: KindUndrained, Service: "web", Text: "a is undrained"})
	for _, tt := range []struct {
		after uint64
		want  []string
	}{
		{0, []string{"a is drained", "lost", "a is undrained"}},
		{101, []string{"lost", "a is undrained"}},
		{102, []string{"a is undrained"}},
		{1001, nil},
	} {
		if got := textsAfter(second, tt.after, "web"); !slices.Equal(got, tt.want) {
			t.Errorf("after %d: got %q, want %q", tt.after, got, tt.want)
		}
	}
	if second.Last() != 1001 {
		t.Errorf("the last event is %d, want 1001", second.Last())
	}
}

// The sets of another process are no news here.
func TestImportedSetsAreNoEvents(t *testing.T) {
	s := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
	s.Import([]lb.Endpoints{setOf("web", 1, 2)}, nil)
	s.OnUpdate([]lb.Endpoints{setOf("web", 1, 2)})
	if got := textsAfter(s.events, 0, ""); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
	s.OnUpdate([]lb.Endpoints{setOf("web", 1)})
	if got := textsAfter(s.events, 0, ""); len(got) != 1 {
		t.Errorf("got %q, want that 2 has left", got)
	}
}

func TestTextsOfEventsAreBounded(t *testing.T) {
	l := NewEvents()
	l.Add(Event{Kind: KindOut, Text: strings.Repeat("ä", maxText)})
	if got := textsAfter(l, 0, "")[0]; len(got) > maxText || !strings.HasSuffix(got, "ä...") {
		t.Errorf("got %d bytes, which end in %q", len(got), got[len(got)-8:])
	}
}

func BenchmarkEventsAdd(b *testing.B) {
	l := NewEvents()
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprint("service-", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Add(Event{Kind: KindJoined, Service: names[i*7%len(names)], Text: "n/a at 10.0.0.1:80"})
	}
}
