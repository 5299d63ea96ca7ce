package endpoints

import (
	"slices"
	"testing"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A fixedJudge returns the same verdicts for each set.
type fixedJudge map[string]cycles.Verdict

func (j fixedJudge) Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict {
	all := map[string]map[string]cycles.Verdict{}
	for _, u := range updates {
		all[u.Service] = map[string]cycles.Verdict{}
		for id, v := range j {
			all[u.Service][id] = v
		}
	}
	return all
}

// A lastSink stores the last update.
type lastSink struct{ lb.Endpoints }

func (s *lastSink) OnUpdate(updates []lb.Endpoints) { s.Endpoints = updates[len(updates)-1] }

func TestAllOfSeveralJudgesCount(t *testing.T) {
	one := fixedJudge{"1": {Reason: "loop"}, "2": {Reason: "loop"}}
	two := fixedJudge{"2": {Reason: "check"}, "3": {Reason: "check"}}
	sets := NewSets(&lastSink{}, NewEvents(), Judges(one, two))
	sets.OnUpdate([]lb.Endpoints{setOf("web", 1, 2, 3, 4)})
	wantReasons := func(want ...string) {
		t.Helper()
		var got []string
		v, _ := sets.View("web")
		for _, e := range v.Endpoints {
			got = append(got, e.Verdict.Reason)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	wantReasons("loop", "loop", "check", "")
	delete(one, "1")
	delete(one, "2")
	sets.ReconsiderService("web")
	wantReasons("", "check", "check", "")
	clear(two)
	sets.ReconsiderService("web")
	wantReasons("", "", "", "")
}

// If an endpoint fails its check, its connections end as for an endpoint that is critical in Consul. If an endpoint
// leads back, they continue.
func TestAnEndpointThatFailsHasLeft(t *testing.T) {
	judge, sink := fixedJudge{}, &lastSink{}
	sets := NewSets(sink, NewEvents(), judge)
	sets.OnUpdate([]lb.Endpoints{setOf("web", 1, 2, 3)})
	judge["1"] = cycles.Verdict{Reason: "check", Critical: true}
	judge["2"] = cycles.Verdict{Reason: "loop"}
	sets.ReconsiderService("web")
	if len(sink.Endpoints.Endpoints) != 1 || len(sink.Left) != 1 || sink.Left[0].ID != "1" ||
		sink.Left[0].Why != lb.Critical {
		t.Errorf("got %+v", sink.Endpoints)
	}
	sets.ReconsiderService("web")
	if len(sink.Left) != 0 {
		t.Errorf("told twice: %+v", sink.Left)
	}
}
