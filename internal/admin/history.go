package admin

import (
	"sync"
	"time"
)

// historyLength is how many samples, one a second, are kept of each service. A thousand services take three MiB.
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
	services map[string]*ring
}

// A ring is the samples of one service.
type ring struct {
	samples [historyLength]Sample
	n       int // taken so far
	before  Counters
	seen    bool // before means something
}

func newHistory() *history { return &history{services: map[string]*ring{}} }

// sample notes what the counters say now, for the time since the last call. Services that are not among them are forgotten.
func (h *history) sample(now time.Time, counters map[string]Counters) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seconds := now.Sub(h.last).Seconds()
	h.last = now
	for name, c := range counters {
		r := h.services[name]
		if r == nil {
			r = &ring{}
			h.services[name] = r
		}
		if r.seen && seconds > 0 {
			r.samples[r.n%historyLength] = between(&r.before, &c, seconds)
			r.n++
		}
		r.before, r.seen = c, true
	}
	for name := range h.services {
		if _, there := counters[name]; !there {
			delete(h.services, name)
		}
	}
}

// between is what happened between two states of counters, for each second. Counters that went back are of a service that began anew.
func between(before, now *Counters, seconds float64) Sample {
	rate := func(delta int64) float64 { return float64(max(delta, 0)) / seconds }
	s := Sample{
		Clients: uint32(rate(now.Connections-before.Connections+now.Sessions-before.Sessions) + 0.5),
		Active:  uint32(max(now.ConnectionsActive+now.SessionsActive, 0)),
		Bytes:   float32(rate(now.BytesUp - before.BytesUp + now.BytesDown - before.BytesDown)),
	}
	if dials := now.Dials - before.Dials; dials > 0 {
		s.Latency = float32((now.DialSeconds - before.DialSeconds) / float64(dials))
	}
	return s
}

// of returns the samples of one service, oldest first.
func (h *history) of(service string) []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	samples := []Sample{}
	r := h.services[service]
	if r == nil {
		return samples
	}
	for i := max(0, r.n-historyLength); i < r.n; i++ {
		samples = append(samples, r.samples[i%historyLength])
	}
	return samples
}
