package endpoints

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

func mustDrain(t *testing.T, s *Sets, service, endpoint string) {
	t.Helper()
	if _, err := s.Drain(service, endpoint, Order{Force: true}); err != nil {
		t.Fatal(err)
	}
}

func mustUndrain(t *testing.T, s *Sets, service, endpoint string) {
	t.Helper()
	if err := s.Undrain(service, endpoint, "", ""); err != nil {
		t.Fatal(err)
	}
}

// textsOf returns the texts of the events of these kinds.
func textsOf(events *Events, kinds ...Kind) (texts []string) {
	all, _, _ := events.After(0, "", MaxEvents)
	for _, e := range all {
		if slices.Contains(kinds, e.Kind) {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// The last endpoint that gets clients is drained only by force. Endpoints that are drained, forbidden or failing are no
// replacement for it.
func TestTheLastUsableEndpointIsDrainedOnlyByForce(t *testing.T) {
	for _, tt := range []struct {
		name     string
		drained  string
		order    Order
		endpoint string
		refused  bool
	}{
		{name: "others get clients", endpoint: "2"},
		{name: "others are drained", drained: "3", endpoint: "2", refused: true},
		{name: "others are drained, by force", drained: "3", endpoint: "2", order: Order{Force: true}},
		{name: "others fail", order: Order{Failing: map[string]bool{"3": true}}, endpoint: "2", refused: true},
		{name: "itself fails", order: Order{Failing: map[string]bool{"2": true}}, endpoint: "2"},
		{name: "all fail", order: Order{Failing: map[string]bool{"2": true, "3": true}}, endpoint: "2", refused: true},
		{name: "itself is forbidden", drained: "2 3", endpoint: "1"},
		{name: "it is drained already", drained: "3 2", order: Order{Reason: "disk"}, endpoint: "2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJudged(t)
			j.listen(map[string]uint16{"a": 1})
			j.OnUpdate([]lb.Endpoints{setOf("a", 1, 2, 3)})
			for _, id := range strings.Fields(tt.drained) {
				mustDrain(t, j.Sets, "a", id)
			}
			before, _, _ := j.events.After(0, "", MaxEvents)
			_, err := j.Drain("a", tt.endpoint, tt.order)
			if errors.Is(err, ErrLastUsable) != tt.refused || !tt.refused && err != nil {
				t.Errorf("got %v, refused: want %v", err, tt.refused)
			}
			if after, _, _ := j.events.After(0, "", MaxEvents); tt.refused && len(after) != len(before) {
				t.Errorf("a refused drain made the events %+v", after[len(before):])
			}
		})
	}
}

// A drain with a duration ends by itself, even if the endpoint has left its set meanwhile. The view and the events say
// by whom, why and until when. A drain that replaces it keeps the beginning, and its own end counts.
func TestADrainEndsAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		balancer := lb.NewRoundRobin()
		s := NewSets(balancer, NewEvents(), nil)
		both := lb.Endpoints{Service: "web", Endpoints: endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1")}
		s.OnUpdate([]lb.Endpoints{both})
		began := time.Now()
		drained := func(o Order) {
			t.Helper()
			d, err := s.Drain("web", "a", o)
			if err != nil || o.For > 0 && !d.Until.Equal(time.Now().Add(o.For)) {
				t.Fatalf("drained until %v, %v", d.Until, err)
			}
		}
		shown := func() EndpointView {
			v, _ := s.View("web")
			return v.Endpoints[0]
		}
		drained(Order{By: "alice", Reason: "new disk", For: 10 * time.Minute})
		time.Sleep(time.Minute)
		drained(Order{By: "bob", For: 10 * time.Minute})
		s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: both.Endpoints[1:]}})
		s.OnUpdate([]lb.Endpoints{both})
		time.Sleep(9*time.Minute + 30*time.Second) // the end of the first order is over
		want := Drain{By: "bob", Until: began.Add(11 * time.Minute)}
		if v := shown(); !v.Drained.Equal(began) || v.Drain != want {
			t.Errorf("drained since %v: %+v, want since %v: %+v", v.Drained, v.Drain, began, want)
		}
		serves(t, balancer, "web", "b")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if v := shown(); !v.Drained.IsZero() || v.Drain != (Drain{}) {
			t.Errorf("still drained: %+v", v)
		}
		drained(Order{For: time.Minute})
		if err := s.Undrain("web", "a", "carol", "repaired"); err != nil {
			t.Error(err)
		}
		drained(Order{})
		time.Sleep(2 * time.Minute) // the end of the drain that carol has ended is over
		if v := shown(); v.Drained.IsZero() || !v.Drain.Until.IsZero() {
			t.Errorf("want a drained without an end, got %+v", v)
		}
		wantTexts := []string{
			"a gets no new clients for 10m0s; drained by alice: new disk",
			"a gets no new clients for 10m0s; drained by bob",
			"a gets clients again, the time of its drain is over; drained by bob",
			"a gets no new clients for 1m0s", "a gets clients again; undrained by carol: repaired",
			"a gets no new clients until it is undrained",
		}
		if got := textsOf(s.events, KindDrained, KindUndrained); !slices.Equal(got, wantTexts) {
			t.Errorf("got  %q\nwant %q", got, wantTexts)
		}
	})
}

// A service that is removed takes the ends of its drains with it.
func TestARemovedServiceForgetsTheEndOfADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
		web := lb.Endpoints{Service: "web", Endpoints: endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1")}
		s.OnUpdate([]lb.Endpoints{web})
		if _, err := s.Drain("web", "a", Order{For: time.Minute}); err != nil {
			t.Fatal(err)
		}
		s.OnUpdate([]lb.Endpoints{{Service: "web", Removed: true}})
		s.OnUpdate([]lb.Endpoints{web})
		mustDrain(t, s, "web", "a")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if v, _ := s.View("web"); v.Endpoints[0].Drained.IsZero() {
			t.Error("the end of a forgotten drain has ended another one")
		}
	})
}

// A drain goes over to another process with all that is known of it, and ends when it would have ended.
func TestADrainGoesOverWithItsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1 c=10.0.0.3:80*1")
		web := lb.Endpoints{Service: "web", Endpoints: set}
		first := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
		first.OnUpdate([]lb.Endpoints{web})
		if _, err := first.Drain("web", "a", Order{By: "alice", Reason: "disk", For: 3 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		mustDrain(t, first, "web", "b")
		time.Sleep(time.Minute)
		sets, drains := first.Export()
		text, err := json.Marshal(drains)
		if err != nil {
			t.Fatal(err)
		}
		var received []ExportedDrain
		if err := json.Unmarshal(text, &received); err != nil {
			t.Fatal(err)
		}
		second := NewSets(lb.NewRoundRobin(), NewEvents(), nil)
		second.Import(sets, received)
		before, _ := first.View("web")
		after, _ := second.View("web")
		for i := range 2 {
			b, a := before.Endpoints[i], after.Endpoints[i]
			if !a.Drained.Equal(b.Drained) || a.Drain.By != b.Drain.By || a.Drain.Reason != b.Drain.Reason ||
				!a.Drain.Until.Equal(b.Drain.Until) {
				t.Errorf("got %+v since %v, want %+v since %v", a.Drain, a.Drained, b.Drain, b.Drained)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		v, _ := second.View("web")
		if !v.Endpoints[0].Drained.IsZero() || v.Endpoints[1].Drained.IsZero() {
			t.Errorf("got %+v, want that only b is drained still", v.Endpoints)
		}
	})
}

// An endpoint that the Judge forbids stays forbidden when its drain ends.
func TestTheEndOfADrainLeavesVerdictsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		judge := judgeOf(func(lb.Endpoints) map[string]cycles.Verdict {
			return map[string]cycles.Verdict{"a": {Reason: cycles.Loop, Text: "leads back"}}
		})
		balancer := lb.NewRoundRobin()
		s := NewSets(balancer, NewEvents(), judge)
		s.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpointsAt(t, "a=10.0.0.1:80*1 b=10.0.0.2:80*1")}})
		if _, err := s.Drain("web", "a", Order{For: time.Minute}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		serves(t, balancer, "web", "b")
	})
}

type judgeOf func(lb.Endpoints) map[string]cycles.Verdict

func (f judgeOf) Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict {
	verdicts := map[string]map[string]cycles.Verdict{}
	for _, u := range updates {
		verdicts[u.Service] = f(u)
	}
	return verdicts
}
