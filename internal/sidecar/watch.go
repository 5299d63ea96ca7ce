package sidecar

import (
	"context"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

const (
	// maxBells is how many instances are watched over plain HTTP or a Unix socket, where each blocking question takes
	// a connection, of which an agent allows a host 200. Changes of further instances are found within interval.
	maxBells = 16

	bellWait = 45 * time.Second // how long the agent may hold a question
)

// watch has Run woken when the registration of an exposed instance changes.
func (r *Registrar) watch(ctx context.Context) {
	for id, stop := range r.run.bells {
		if i := r.run.known[id]; i == nil || !i.leaving.IsZero() {
			stop()
			delete(r.run.bells, id)
		}
	}
	for _, i := range r.sorted() {
		if r.run.bells[i.ServiceID] != nil || !i.leaving.IsZero() {
			continue
		}
		if len(r.run.bells) >= maxBells && !r.o.Consul.Multiplexes() {
			return
		}
		var within context.Context
		within, r.run.bells[i.ServiceID] = context.WithCancel(ctx)
		r.run.ringing.Go(func() { r.ring(within, i.ServiceID) })
	}
}

// ring wakes Run whenever the registration of an instance changes, until ctx ends. After an error, Run finds changes by
// its own questions.
func (r *Registrar) ring(ctx context.Context, id string) {
	hash := ""
	var backoff consul.Backoff
	for ctx.Err() == nil {
		limit := bellWait + bellWait/16 + consul.Grace
		asking, cancel := context.WithTimeoutCause(ctx, limit, &consul.TimeoutError{After: limit})
		now, err := r.o.Consul.ServiceChange(asking, id, hash, consul.Jitter(bellWait))
		cancel()
		if now != hash { // the first answer may be newer than what Run has seen
			r.look()
		}
		hash = now
		if err != nil || now == "" {
			consul.Sleep(ctx, backoff.Pause(time.Now(), interval, mostRetry), nil)
		}
	}
}

// stopBells ends all watches, and waits for them.
func (r *Registrar) stopBells() {
	for _, stop := range r.run.bells {
		stop()
	}
	r.run.ringing.Wait()
}
