package admin

import (
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// historyLength is the number of samples kept for each service, one for each second. A thousand busy services use three
// MiB.
const historyLength = 180

// refusedSamples is the number of samples over which the rates of refused clients are averaged.
const refusedSamples = 10

// A Sample describes one second of a service.
type Sample struct {
	Clients uint32  `json:"clients"` // TCP connections or UDP sessions that began
	Active  uint32  `json:"active"`  // at the end of the second
	Bytes   float32 `json:"bytes"`   // both ways
	Latency float32 `json:"latency"` // mean dial time in seconds; 0 if there was no dial
	Refused uint32  `json:"refused"` // clients that were refused
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

	refused *[refusedSamples]proxy.RefusedBy // clients refused in the last samples; nil if there were none
	calm    int                              // consecutive samples at the end without a refused client

	before proxy.Activity
	look   int // the last call of sample that had the service
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
			r.refuse(refusedBetween(&r.before, &a))
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

// refuse records the clients that were refused since the last sample. A service that refuses no client takes no memory.
func (r *ring) refuse(by proxy.RefusedBy) {
	if r.calm++; by != (proxy.RefusedBy{}) {
		r.calm = 0
	}
	if r.refused == nil && r.calm == 0 {
		r.refused = new([refusedSamples]proxy.RefusedBy)
	} else if r.calm >= refusedSamples {
		r.refused = nil
	}
	if r.refused != nil {
		r.refused[r.n%refusedSamples] = by
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
	for _, n := range refusedBetween(before, now) {
		s.Refused += uint32(rate(n) + 0.5)
	}
	if dials := now.Dials - before.Dials; dials > 0 {
		s.Latency = float32((now.DialTime - before.DialTime).Seconds() / float64(dials))
	}
	return s
}

// refusedBetween returns the clients that were refused between two measurements. If a counter went backwards, the
// service was replaced, and the count is zero.
func refusedBetween(before, now *proxy.Activity) (by proxy.RefusedBy) {
	for i := range by {
		by[i] = max(now.RefusedBy[i]-before.RefusedBy[i], 0)
	}
	return by
}

// refused returns how many clients of a service were refused a second, by proxy.Refusal, on average over the last
// refusedSamples. The result is nil if no client was refused.
func (h *history) refused(service string) map[string]float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.services[service]
	if r == nil || r.refused == nil {
		return nil
	}
	rates := map[string]float64{}
	for reason := range len(proxy.RefusedBy{}) {
		sum := int64(0)
		for i := range r.refused {
			sum += r.refused[i][reason]
		}
		if sum > 0 {
			rates[proxy.Refusal(reason).String()] = float64(sum) / float64(min(r.n, refusedSamples))
		}
	}
	return rates
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
