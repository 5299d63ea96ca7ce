package daemon

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/allowance"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/proxy"
)

// forbidden adds events for clients that may not use an exposed service because of their identity. A client that comes
// again and again has one event in a minute, which says how often it came. Set add before use. Safe for concurrent use.
type forbidden struct {
	add func(...endpoints.Event)

	mu    sync.Mutex // guards the fields below
	all   map[forbiddenClient]*forbiddenTimes
	often allowance.Allowance // of all clients
}

// A forbiddenClient is a client of a service, and what happened to it.
type forbiddenClient struct{ service, identity, what string }

type forbiddenTimes struct {
	untold int // since the last event
	often  allowance.Allowance
}

// What happens to a forbiddenClient.
const (
	forbiddenEntry = "may not use the service"
	forbiddenNow   = "may not use the service any more, and is cut off"
)

const (
	forbiddenEvery  = time.Minute // between two events of a client
	forbiddenAtOnce = 16          // events of all clients
	forbiddenPause  = 4 * time.Second
	maxForbidden    = 256 // clients that are remembered
)

// note adds an event about a client of a service, unless there were too many lately or why is nil. what says what
// happened to the client, and why is what decided it. note does not block.
func (f *forbidden) note(service, identity, what string, why error) {
	if why == nil {
		return
	}
	times := f.count(forbiddenClient{service, identity, what}, time.Now())
	if times == 0 {
		return
	}
	text := fmt.Sprintf("%s %s: %s", identity, what, strings.TrimPrefix(why.Error(), proxy.ErrForbidden.Error()+": "))
	if times > 1 {
		text += fmt.Sprintf(" (%d times since the last event)", times)
	}
	f.add(endpoints.Event{Kind: endpoints.KindForbidden, Service: service, Text: text})
}

// count counts that c was forbidden to use the service. If an event is due, count returns how often that was since the
// last one, and otherwise zero. Clients beyond maxForbidden have no events.
func (f *forbidden) count(c forbiddenClient, now time.Time) (times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.all[c]
	if one == nil {
		if len(f.all) >= maxForbidden {
			maps.DeleteFunc(f.all, func(_ forbiddenClient, t *forbiddenTimes) bool {
				return t.often.IsComplete(now)
			})
		}
		if len(f.all) >= maxForbidden {
			return 0
		}
		if f.all == nil {
			f.all = map[forbiddenClient]*forbiddenTimes{}
		}
		one = &forbiddenTimes{}
		f.all[c] = one
	}
	one.untold++
	if !one.often.IsComplete(now) || !f.often.Take(now, forbiddenAtOnce, forbiddenPause) {
		return 0
	}
	one.often.Take(now, 1, forbiddenEvery)
	times, one.untold = one.untold, 0
	return times
}
