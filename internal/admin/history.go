package admin

import (
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// historyLength is how many samples, one a second, are kept of each service. A thousand services that are in use
// take three MiB.
const historyLength = 180

// A Sample is what a service did in one second.
type Sample struct {
	Clients uint32  `json:"clients"` // TCP connections or UDP sessions that began
	Active  uint32  `json:"active"`  // at its end
	Bytes   float32 `json:"bytes"`   // both ways
	Latency float32 `json:"latency"` // mean of the dials, in seconds; 0: there was none
}

// A history is the samples of the last minutes. Safe for concurrent use.
type history struct {
	mu       sync.Mutex
	last     time.Time
	looks    int // taken so far
	services map[string]*ring
}

// A ring is the samples of one service.
type ring struct {
	samples *[historyLength]Sample // nil: nothing happened in any of them
	n       int                    // taken so far
	quiet   int                    // of those, the last in which nothing happened
	before  proxy.Activity
	look    int // the last that the service was in
}

func newHistory() *history { return &history{services: map[string]*ring{}} }

// sample notes what the services have done since the last call; each calls its argument for each of them. Others are
// forgotten.
func (h *history) sample(now time.Time, each func(func(service string, a proxy.Activity))) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seconds := now.Sub(h.last).Seconds()
	h.last = now
	h.looks++
	each(func(name string, a proxy.Activity) {
		r := h.services[name]
		if r == nil {
			r = &ring{}
			h.services[name] = r
		} else if seconds > 0 {
			r.add(between(&r.before, &a, seconds))
		}
		r.before, r.look = a, h.looks
	})
	for name, r := range h.services {
		if r.look != h.looks {
			delete(h.services, name)
		}
	}
}

// add takes no memory as long as nothing happens.
func (r *ring) add(s Sample) {
	if r.quiet++; s != (Sample{}) {
		r.quiet = 0
	}
	if r.samples == nil && r.quiet == 0 {
		r.samples = new([historyLength]Sample)
	} else if r.quiet >= historyLength {
		r.samples = nil
	}
	if r.samples != nil {
		r.samples[r.n%historyLength] = s
	}
	r.n++
}

// between is what happened between two looks, for each second. Counters that went back are of a service that began
// anew.
func between(before, now *proxy.Activity, seconds float64) Sample {
	rate := func(delta int64) float64 { return float64(max(delta, 0)) / seconds }
	s := Sample{
		Clients: uint32(rate(now.Clients-before.Clients) + 0.5),
		Active:  uint32(max(now.Active, 0)),
		Bytes:   float32(rate(now.Bytes - before.Bytes)),
	}
	if dials := now.Dials - before.Dials; dials > 0 {
		s.Latency = float32((now.DialTime - before.DialTime).Seconds() / float64(dials))
	}
	return s
}

// of returns the samples of one service, oldest first.
func (h *history) of(service string) []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.services[service]
	if r == nil {
		return []Sample{}
	}
	samples := make([]Sample, min(r.n, historyLength))
	for i := range samples {
		if r.samples != nil {
			samples[i] = r.samples[(r.n-len(samples)+i)%historyLength]
		}
	}
	return samples
}
