package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A Prober finds out whether endpoints can be reached from here. Its methods are called concurrently. *lb.Prober is
// one.
type Prober interface {
	// CanProbe reports whether the endpoints of a service can be probed.
	CanProbe(service string) bool

	// Probe returns nil if the endpoint of a service can be reached. It returns within seconds.
	Probe(ctx context.Context, service string, e lb.Endpoint) error
}

const (
	// probeHeld is the time between two probes of a held endpoint. After maxProbeFails failures in a row it counts as
	// unreachable: an instance that restarts is not let go for that.
	probeHeld     = time.Second
	maxProbeFails = 2

	probesAtOnce = 16 // of one watch
)

// A vigil probes the endpoints that a watch holds. The zero vigil probes nothing. Its methods may be called by any
// goroutine.
type vigil struct {
	prober   Prober // nil: nothing can be probed
	services func() []string
	failed   func() // called when an endpoint has become unreachable

	mu    sync.Mutex             // guards the following
	over  map[string]lb.Endpoint // that are probed, by ID
	fails map[string]int         // in a row, by ID
	news  bool                   // one of over is unreachable
	alive bool                   // run is at work
}

// canProbe reports whether the endpoints can be probed.
func (v *vigil) canProbe() bool { return v.proberFor() != "" }

// proberFor returns a service for which the endpoints can be probed; empty if there is none.
func (v *vigil) proberFor() string {
	if v.prober == nil {
		return ""
	}
	for _, service := range v.services() {
		if v.prober.CanProbe(service) {
			return service
		}
	}
	return ""
}

// watchOver has the endpoints of b probed that are held as long as they can be reached, and no others. It reports
// whether the caller has to start run.
func (v *vigil) watchOver(b *belief) (start bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over, v.news = map[string]lb.Endpoint{}, false
	for _, e := range b.set {
		if h, held := b.held[e.ID]; held && h.why != HoldDeregistered {
			v.over[e.ID] = e
			v.news = v.news || v.fails[e.ID] >= maxProbeFails
		}
	}
	for id := range v.fails {
		if _, over := v.over[id]; !over {
			delete(v.fails, id)
		}
	}
	start = len(v.over) > 0 && !v.alive && v.prober != nil
	v.alive = v.alive || start
	return start
}

// run probes until there is nothing to probe any more, or ctx ends.
func (v *vigil) run(ctx context.Context) {
	for round := v.begin(); len(round) > 0; round = v.begin() {
		if service := v.proberFor(); service != "" {
			v.probeAll(ctx, service, round)
		}
		if !sleep(ctx, jitter(probeHeld)) {
			return
		}
	}
}

// begin returns the endpoints of the next round. If there are none, run must end.
func (v *vigil) begin() (round []lb.Endpoint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.over {
		round = append(round, e)
	}
	v.alive = len(round) > 0
	return round
}

// probeAll probes each endpoint once.
func (v *vigil) probeAll(ctx context.Context, service string, round []lb.Endpoint) {
	var wg sync.WaitGroup
	room := make(chan struct{}, probesAtOnce)
	for _, e := range round {
		room <- struct{}{}
		wg.Go(func() {
			v.probeOne(ctx, service, e)
			<-room
		})
	}
	wg.Wait()
}

// probeOne probes an endpoint once. What fails because of this host says nothing of the endpoint.
func (v *vigil) probeOne(ctx context.Context, service string, e lb.Endpoint) {
	err := v.prober.Probe(ctx, service, e)
	if err != nil {
		if _, ours := lb.CauseOf(err); ours || ctx.Err() != nil {
			return
		}
	}
	if v.note(e.ID, err == nil) {
		v.failed()
	}
}

// note notes the outcome of a probe, and reports whether it makes the endpoint unreachable.
func (v *vigil) note(id string, reached bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, over := v.over[id]; !over {
		return false
	}
	if reached {
		delete(v.fails, id)
		return false
	}
	if v.fails == nil {
		v.fails = map[string]int{}
	}
	v.fails[id]++
	v.news = v.news || v.fails[id] == maxProbeFails
	return v.fails[id] == maxProbeFails
}

// unreachable returns the endpoints that cannot be reached, by ID; nil if there are none.
func (v *vigil) unreachable() map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all map[string]bool
	for id, n := range v.fails {
		if n >= maxProbeFails {
			if all == nil {
				all = map[string]bool{}
			}
			all[id] = true
		}
	}
	return all
}

// hasNews reports whether an endpoint that watchOver named cannot be reached any more.
func (v *vigil) hasNews() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.news
}
