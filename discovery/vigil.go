package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A Prober checks whether endpoints can be reached from this host. The methods of a Prober are called concurrently.
// *lb.Prober implements Prober.
type Prober interface {
	// CanProbe reports whether the endpoints of a service can be probed.
	CanProbe(service string) bool

	// Probe returns nil if the endpoint of a service can be reached. Probe returns within seconds.
	Probe(ctx context.Context, service string, e lb.Endpoint) error
}

const (
	// probeHeld is the time between two probes of a held endpoint. After maxProbeFails failures in a row, the endpoint
	// counts as unreachable. One failed probe is not enough, because an instance may just be restarting.
	probeHeld     = time.Second
	maxProbeFails = 2

	probesAtOnce = 16 // for the endpoints of one watch
)

// A vigil probes the endpoints that a watch holds. The zero vigil probes nothing. The methods of a vigil may be called
// from any goroutine.
type vigil struct {
	prober   Prober // nil: nothing can be probed
	services func() []string
	failed   func() // called when an endpoint has become unreachable

	mu    sync.Mutex             // guards the following fields
	over  map[string]lb.Endpoint // endpoints to probe, by ID
	fails map[string]int         // failed probes in a row, by ID
	news  bool                   // an endpoint in over is unreachable
	alive bool                   // run is running
}

// canProbe reports whether the endpoints can be probed.
func (v *vigil) canProbe() bool { return v.proberFor() != "" }

// proberFor returns a service for which the endpoints can be probed; empty if there is no such service.
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

// watchOver sets the endpoints to probe: the held endpoints of b, except deregistered ones. watchOver reports whether
// the caller must start run.
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

// run probes until no endpoint is left to probe, or ctx ends.
func (v *vigil) run(ctx context.Context) {
	for round := v.begin(); len(round) > 0; round = v.begin() {
		if service := v.proberFor(); service != "" {
			v.probeAll(ctx, service, round)
		}
		if !consul.Sleep(ctx, consul.Jitter(probeHeld), nil) {
			return
		}
	}
}

// begin returns the endpoints of the next round. If the round is empty, run must end.
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

// probeOne probes an endpoint once. A failure caused by this host says nothing about the endpoint, and is ignored.
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

// note records the result of a probe. note reports whether the result makes the endpoint unreachable.
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

// unreachable returns the endpoints that cannot be reached, by ID. unreachable returns nil if there are none.
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

// hasNews reports whether an endpoint set by watchOver has become unreachable.
func (v *vigil) hasNews() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.news
}
