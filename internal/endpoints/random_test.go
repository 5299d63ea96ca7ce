package endpoints

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// With concurrent sources, operators and judge, the balancer finally has the endpoints that the view shows as serving:
// those neither drained nor forbidden. Removed services leave nothing behind.
func TestTheBalancerGetsWhatTheViewShows(t *testing.T) {
	j := newJudged(t)
	names := []string{"a", "b", "c"}
	ports := map[string]uint16{"a": 1, "b": 2, "c": 3}
	j.listen(ports)
	var running sync.WaitGroup
	for round := range 20 {
		for i, name := range names {
			running.Go(func() { j.updates(name, rand.New(rand.NewPCG(uint64(round), uint64(i)))) })
			running.Go(func() { j.operates(name, rand.New(rand.NewPCG(uint64(i), uint64(round)))) })
		}
		running.Go(func() { j.listen(ports) }) // has all sets judged again
		running.Wait()
		for _, name := range names {
			j.agree(name)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	for _, name := range names {
		j.OnUpdate([]lb.Endpoints{{Service: name, Removed: true}})
	}
	if n := len(j.Sets.sets); n != 0 || len(j.balancer.Snapshot()) != 0 {
		t.Errorf("%d sets are left, and %v in the balancer", n, j.balancer.Snapshot())
	}
}

// updates is the only source of a service. The service's endpoints may lead to any of the services.
func (j *judged) updates(service string, r *rand.Rand) {
	for range 30 {
		if r.IntN(10) == 0 {
			j.OnUpdate([]lb.Endpoints{{Service: service, Removed: true}})
		}
		var ports []uint16
		for port := range uint16(6) {
			if r.IntN(2) == 0 {
				ports = append(ports, port+1)
			}
		}
		j.OnUpdate([]lb.Endpoints{setOf(service, ports...)})
	}
}

// operates drains and undrains endpoints of a service. Some of them do not exist or are not drained, which is an error.
func (j *judged) operates(service string, r *rand.Rand) {
	for range 30 {
		id := fmt.Sprint(1 + r.IntN(6))
		if r.IntN(2) == 0 {
			_ = j.Undrain(service, id, "", "")
			continue
		}
		_, _ = j.Drain(service, id, Order{Force: r.IntN(2) == 0})
	}
}

// agree compares the balancer's endpoints of a service with the view, and the view with the judge.
func (j *judged) agree(service string) {
	j.Helper()
	var want, got []string
	v, _ := j.View(service)
	for _, e := range v.Endpoints {
		if !e.Joined.IsZero() && e.Drained.IsZero() && e.Forbidden.IsZero() {
			want = append(want, e.ID)
		}
		if self := e.ID == fmt.Sprint(service[0]-'a'+1); self && !e.Joined.IsZero() && e.Verdict.Reason != cycles.Loop {
			j.Errorf("%s leads to itself by %s, with the verdict %v", service, e.ID, e.Verdict)
		}
	}
	for _, s := range j.balancer.Snapshot() {
		for _, e := range s.Endpoints {
			if s.Service == service {
				got = append(got, e.ID)
			}
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		j.Errorf("%s: the balancer has %v, the view %v", service, got, want)
	}
}

// A service that is removed and comes back is judged like any other.
func TestARemovedServiceIsJudgedWhenItReturns(t *testing.T) {
	const self = "1 loop 127.0.0.1:1 is where this service listens"
	j := newJudged(t)
	j.listen(map[string]uint16{"a": 1})
	for range 2 {
		j.OnUpdate([]lb.Endpoints{setOf("a", 1, 8)})
		j.serves("a", []string{"8"}, self)
		if !j.Known("a") || j.Known("b") {
			t.Error("a is known, and b is not")
		}
		j.OnUpdate([]lb.Endpoints{{Service: "a", Removed: true}})
		if _, known := j.View("a"); known || j.Known("a") || len(j.Sets.sets) != 0 {
			t.Error("something is known of a service that was removed")
		}
	}
	j.OnUpdate([]lb.Endpoints{{Service: "a", Removed: true}, setOf("a", 1, 8)}) // in one update
	j.serves("a", []string{"8"}, self)
	if _, err := j.Drain("b", "1", Order{}); err == nil {
		t.Error("an endpoint of an unknown service is drained")
	}
	if _, err := j.Drain("a", "9", Order{}); err == nil {
		t.Error("an unknown endpoint is drained")
	}
	if err := j.Undrain("a", "8", "", ""); err == nil {
		t.Error("an endpoint that is not drained is undrained")
	}
}
