package endpoints

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// Sets keep the endpoints of each service, record changes as events, and pass on the endpoints that may get clients to
// the next sink. An endpoint may get clients if no operator has drained it and no Judge forbids it. Sets implement
// discovery.Sink, and are safe for concurrent use.
//
// An update takes four steps: it is queued, it is stored in its set, the set is judged, and the next sink receives the
// set. Each step works on the present data, so two goroutines in the same step for one service cannot restore an old
// set.
type Sets struct {
	next   discovery.Sink
	events *Events
	judge  Judge // nil if no endpoint is forbidden

	judging sync.Mutex // held while the judge is called and its verdicts are stored, so that it sees each set in order

	mu   sync.Mutex // guards the fields below; held only briefly
	sets map[string]*set
}

// A set holds what is known of one service. Lock turn before mu, and mu before Sets.mu.
type set struct {
	service string
	queue   []lb.Endpoints // updates that are not stored yet, oldest first; guarded by Sets.mu

	turn  sync.Mutex  // held during calls of next, so that next receives this service's updates in order
	again atomic.Bool // the goroutine with the turn must call next once more

	mu        sync.Mutex // guards the fields below; never held during calls of next
	known     bool       // the service has received an update, and was not removed since
	endpoints []lb.Endpoint
	joined    []time.Time       // when each of endpoints joined the set
	drained   map[string]*drain // by ID; an endpoint that returns stays drained
	forbidden map[string]ban    // verdicts of the judge, by ID; only the judge changes them
	changed   time.Time         // when endpoints changed last
	left      []lb.Departure    // departures that next has not received
	untold    bool              // next has not received the present state
	taken     uint64            // number of updates
	judged    uint64            // number of updates that the judge has seen; if below taken, next must wait
}

// NewSets returns Sets without services, which call judge, next and events. A nil judge forbids nothing.
func NewSets(next discovery.Sink, events *Events, judge Judge) *Sets {
	return &Sets{next: next, events: events, judge: judge, sets: map[string]*set{}}
}

// OnUpdate implements discovery.Sink. When it returns, next has received the updates. If a service gets several updates
// at once, next may receive only the last one.
func (s *Sets) OnUpdate(updates []lb.Endpoints) {
	s.enqueue(updates)
	s.settle(servicesOf(updates))
}

// enqueue queues updates for settle. enqueue does not block.
func (s *Sets) enqueue(updates []lb.Endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range updates {
		one := s.sets[u.Service]
		if one == nil {
			one = &set{service: u.Service}
			s.sets[u.Service] = one
		}
		one.queue = append(one.queue, u)
	}
}

// settle stores the queued updates of services, has their sets judged, and calls next. When it returns, next has
// received the sets. If verdicts on other services' endpoints have changed, settle calls next for those services too.
func (s *Sets) settle(services []string) {
	own := s.take(services, s.events)
	s.tell(own, s.rejudge(services))
}

// take stores the queued updates of services in their sets, adds the differences to events, and returns those sets.
func (s *Sets) take(services []string, events *Events) (taken []*set) {
	now := time.Now()
	for _, name := range services {
		if one := s.lookUp(name); one != nil {
			s.takeOne(one, now, events)
			taken = append(taken, one)
		}
	}
	return taken
}

func (s *Sets) takeOne(one *set, now time.Time, events *Events) {
	one.mu.Lock()
	defer one.mu.Unlock()
	s.mu.Lock()
	queue := one.queue
	one.queue = nil
	s.mu.Unlock()
	one.taken += uint64(len(queue))
	if s.judge == nil {
		one.judged = one.taken
	}
	for _, u := range queue {
		one.untold = true
		if u.Removed {
			one.undrainAll()
			one.known, one.endpoints, one.joined, one.drained, one.left = false, nil, nil, nil, nil
			continue
		}
		events.Add(one.replace(u.Endpoints, now)...)
		one.left = append(one.left, u.Left...)
	}
}

// tell calls next for all sets. tell waits for the turns of own. For a set of others, the goroutine with the turn calls
// next.
func (s *Sets) tell(own, others []*set) {
	var busy []*set
	for _, one := range own {
		if !s.tryTell(one) {
			busy = append(busy, one)
		}
	}
	for _, one := range others {
		s.tryTell(one)
	}
	for _, one := range busy { // last, so that a stuck set does not delay the others
		one.turn.Lock()
		s.tellInTurn(one)
	}
}

// tryTell calls next for a set. If another goroutine has the turn, tryTell leaves the call to that goroutine and
// returns false.
func (s *Sets) tryTell(one *set) bool {
	// Before TryLock, because the goroutine with the turn may otherwise have checked again for the last time.
	one.again.Store(true)
	if !one.turn.TryLock() {
		return false
	}
	s.tellInTurn(one)
	return true
}

// tellInTurn calls next for a set, and releases the turn, which the caller must hold.
func (s *Sets) tellInTurn(one *set) {
	for {
		one.again.Store(false)
		s.tellOnce(one)
		one.turn.Unlock()
		if !one.again.Load() || !one.turn.TryLock() {
			return
		}
	}
}

// tellOnce calls next with the news of a set. The caller must hold the turn. If the set is not judged yet, tellOnce
// skips it, because the goroutine that stored the update has it judged and calls next afterwards.
func (s *Sets) tellOnce(one *set) {
	if u, untold := one.news(); untold {
		s.next.OnUpdate([]lb.Endpoints{u})
	}
	s.forget(one)
}

// news returns the update for next and marks it as sent. news returns false if there is no news.
func (one *set) news() (u lb.Endpoints, untold bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if !one.untold || one.judged != one.taken {
		return u, false
	}
	u = one.serving()
	one.untold, one.left = false, nil
	return u, true
}

// forget removes a set about which nothing is known any more.
func (s *Sets) forget(one *set) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.known || one.untold || len(one.forbidden) > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(one.queue) == 0 && s.sets[one.service] == one {
		delete(s.sets, one.service)
	}
}

// serving returns the endpoints that may get clients, and the departures since the last call of next. The caller must
// hold mu.
func (one *set) serving() lb.Endpoints {
	if !one.known {
		return lb.Endpoints{Service: one.service, Removed: true}
	}
	u := lb.Endpoints{Service: one.service, Endpoints: one.endpoints, Left: one.left}
	if len(one.drained)+len(one.forbidden) > 0 {
		u.Endpoints = slices.DeleteFunc(slices.Clone(u.Endpoints), func(e lb.Endpoint) bool {
			_, drained := one.drained[e.ID]
			_, forbidden := one.forbidden[e.ID]
			return drained || forbidden
		})
	}
	return u
}

// lookUp returns the set of a service, or nil.
func (s *Sets) lookUp(service string) *set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets[service]
}

// services returns the names of all services, sorted.
func (s *Sets) services() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sets))
}

// servicesOf returns the names of the updated services.
func servicesOf(updates []lb.Endpoints) []string {
	names := make([]string, len(updates))
	for i := range updates {
		names[i] = updates[i].Service
	}
	return names
}
