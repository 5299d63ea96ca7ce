package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A judged is a Sets with a real Judge, a balancer and events.
type judged struct {
	*testing.T
	*Sets
	detector *cycles.Detector
	balancer *lb.RoundRobin
}

func newJudged(t *testing.T) *judged {
	j := &judged{T: t, balancer: lb.NewRoundRobin()}
	nothing := func() ([]netip.Prefix, error) { return nil, nil }
	j.detector = cycles.New(cycles.Options{Changed: func() { j.Reconsider() }, Addrs: nothing})
	j.Sets = NewSets(j.balancer, NewEvents(), j.detector)
	return j
}

// listen makes services listen at these ports of 127.0.0.1.
func (j *judged) listen(ports map[string]uint16) {
	var services []cycles.Service
	for name, port := range ports {
		services = append(services, cycles.Service{Name: name, Listen: []lb.Addr{{AddrPort: at(port)}}})
	}
	j.detector.Listen(services, nil)
}

func at(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// setOf returns a set with endpoints at these ports of 127.0.0.1. The ports are the IDs.
func setOf(service string, ports ...uint16) lb.Endpoints {
	u := lb.Endpoints{Service: service}
	for _, p := range ports {
		u.Endpoints = append(u.Endpoints, lb.Endpoint{ID: fmt.Sprint(p), Addr: at(p), Weight: 1})
	}
	return u
}

// serves checks that the balancer has exactly the endpoints in, and that the view has the others with their reasons.
func (j *judged) serves(service string, in []string, out ...string) {
	j.Helper()
	var got, reasons []string
	for _, s := range j.balancer.Snapshot() {
		for _, e := range s.Endpoints {
			if s.Service == service {
				got = append(got, e.ID)
			}
		}
	}
	v, _ := j.View(service)
	for _, e := range v.Endpoints {
		if !e.Forbidden.IsZero() {
			reasons = append(reasons, e.ID+" "+e.Verdict.Reason+" "+e.Verdict.Text)
		} else if !e.Drained.IsZero() {
			reasons = append(reasons, e.ID+" drained")
		}
	}
	if slices.Sort(got); !slices.Equal(got, in) || !slices.Equal(reasons, out) {
		j.Errorf("%s: %v are served, want %v; out are %q, want %q", service, got, in, reasons, out)
	}
}

func TestSetsLeaveOutWhatLeadsBack(t *testing.T) {
	const (
		self = "1 loop 127.0.0.1:1 is where this service listens"
		aOut = `2 loop 127.0.0.1:2 is where service "b" listens, which leads back: a -> b -> a`
	)
	j := newJudged(t)
	j.listen(map[string]uint16{"a": 1, "b": 2})
	j.OnUpdate([]lb.Endpoints{setOf("a", 1, 8), setOf("b", 1, 9)})
	j.serves("a", []string{"8"}, self)
	j.serves("b", []string{"1", "9"})

	j.OnUpdate([]lb.Endpoints{setOf("a", 2, 8)})
	j.serves("a", []string{"8"}, aOut)
	mustDrain(t, j.Sets, "a", "2")
	j.serves("a", []string{"8"}, aOut)
	j.OnUpdate([]lb.Endpoints{setOf("b", 9)}) // another service, but the cause
	j.serves("a", []string{"8"}, "2 drained")
	mustUndrain(t, j.Sets, "a", "2")
	j.serves("a", []string{"2", "8"})

	j.OnUpdate([]lb.Endpoints{setOf("b", 1, 9)}) // back to the first set
	j.serves("a", []string{"8"}, aOut)
	j.serves("b", []string{"1", "9"})
	j.OnUpdate([]lb.Endpoints{{Service: "b", Removed: true}})
	j.serves("a", []string{"2", "8"})
	j.OnUpdate([]lb.Endpoints{setOf("a", 8), setOf("b", 1)})
	j.listen(map[string]uint16{"a": 3, "b": 1}) // as after a reload
	j.serves("b", nil, self)
	j.listen(map[string]uint16{"a": 3, "b": 4})
	j.serves("b", []string{"1"})

	var kinds []string
	events, _, _ := j.events.After(0, "", MaxEvents)
	for _, e := range events {
		if e.Kind == KindOut || e.Kind == KindReturned {
			kinds = append(kinds, e.Service+" "+e.Endpoint+" "+string(e.Kind))
		}
	}
	want := []string{"a 1 out", "a 2 out", "a 2 returned", "a 2 out", "a 2 returned", "b 1 out", "b 1 returned"}
	if !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}
}
