package admin

import (
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// historyLength is the number of samples kept for each service, one for each second. A thousand busy services use three
// MiB.
const historyLength = 180

// A Sample describes one second of a service.
type Sample struct {
	Clients uint32  `json:"clients"` // TCP connections or UDP sessions that began
	Active  uint32  `json:"active"`  // at the end of the second
	Bytes   float32 `json:"bytes"`   // both ways
	Latency float32 `json:"latency"` // mean dial time in seconds; 0 if there was no dial
}

// A history keeps the samples of the last minutes. The history is safe for concurrent use.
type history struct {
	mu       sync.Mutex
	last     time.Time
	looks    int // calls of sample so far
	services map[string]*ring
}

// A ring keeps the last samples of one service.
type ring struct {
	samples *[historyLength]Sample // nil if all kept samples are zero
	n       int                    // samples added so far
	quiet   int                    // consecutive zero samples at the end
	before  proxy.Activity
	look    int // the last call of sample that had the service
}

func newHistory() *history { return &history{services: map[string]*ring{}} }

// sample records the activity of each service since the last call. The each function must call its argument once for
// every service. sample forgets services that are missing.
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

// add appends s. An idle service takes no memory.
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

// between returns the rates per second between two measurements. If a counter went backwards, the service was replaced,
// and its rate is zero.
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
