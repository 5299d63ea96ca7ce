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

// Sets remember the endpoints of each service, note as events what changes, and tell the next sink which endpoints get
// clients: those that no operator drains and no Judge forbids. Sets are a discovery.Sink. Safe for concurrent use.
//
// An update passes four steps: it is queued, it is taken into its set, the set is judged, and next is told of the set.
// Each step works on what is there by then. So two goroutines that do a step at once for one service cannot bring an
// old set back.
type Sets struct {
	next   discovery.Sink
	events *Events
	judge  Judge // nil: forbids nothing

	judging sync.Mutex // held while judge is asked and its answer is noted, so that it hears of each set in order

	mu   sync.Mutex // guards the following; held for a moment only
	sets map[string]*set
}

// A set is what is known of one service. Lock turn before mu, and mu before Sets.mu.
type set struct {
	service string
	queue   []lb.Endpoints // updates that have come and are not taken yet, oldest first; guarded by Sets.mu

	turn  sync.Mutex  // held while next is told, so that it hears of this service in order
	again atomic.Bool // whoever has the turn tells next once more before it is done

	mu        sync.Mutex // guards the following; never held while next is told
	known     bool       // an update has named the service, and it has not been removed since
	endpoints []lb.Endpoint
	joined    []time.Time          // since when each of endpoints is there
	drained   map[string]time.Time // since when, by ID; an endpoint that leaves the set stays drained if it returns
	forbidden map[string]ban       // by ID; what the judge has said last, and nobody else changes
	changed   time.Time            // when endpoints were last different from before
	left      []lb.Departure       // that next has not been told of
	untold    bool                 // next has not been told how things are
	taken     uint64               // counts the updates
	judged    uint64               // how many of those judge has seen; less than taken: next must not be told yet
}

// NewSets returns Sets that know no service yet, ask judge, and tell next and events. A nil judge forbids nothing.
func NewSets(next discovery.Sink, events *Events, judge Judge) *Sets {
	return &Sets{next: next, events: events, judge: judge, sets: map[string]*set{}}
}

// OnUpdate implements discovery.Sink. It returns when next has been told. If services get several updates at once, next
// may be told of the last one only.
func (s *Sets) OnUpdate(updates []lb.Endpoints) {
	s.enqueue(updates)
	s.settle(servicesOf(updates))
}

// enqueue queues updates for settle. It waits for nothing.
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

// settle takes the queued updates of services, has their sets judged, and tells next. When it returns, next has been
// told. If the updates have changed the verdicts on endpoints of other services, it tells next of those too.
func (s *Sets) settle(services []string) {
	own := s.take(services)
	s.tell(own, s.rejudge(services))
}

// take takes the queued updates of services into their sets, and returns those sets.
func (s *Sets) take(services []string) (taken []*set) {
	now := time.Now()
	for _, name := range services {
		if one := s.lookUp(name); one != nil {
			s.takeOne(one, now)
			taken = append(taken, one)
		}
	}
	return taken
}

func (s *Sets) takeOne(one *set, now time.Time) {
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
			one.known, one.endpoints, one.joined, one.drained, one.left = false, nil, nil, nil, nil
			continue
		}
		one.replace(u.Endpoints, now, s.events)
		one.left = append(one.left, u.Left...)
	}
}

// tell tells next of all sets. It waits for the turns of own. Of others, whoever has the turn of one tells next.
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
	for _, one := range busy { // last, so that none that is stuck holds up the rest
		one.turn.Lock()
		s.tellInTurn(one)
	}
}

// tryTell tells next of a set. If another goroutine is about that, it leaves it to that one, and returns false.
func (s *Sets) tryTell(one *set) bool {
	one.again.Store(true) // before the try: else the other one may have looked for the last time
	if !one.turn.TryLock() {
		return false
	}
	s.tellInTurn(one)
	return true
}

// tellInTurn tells next of a set, whose turn the caller has, and gives the turn back.
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

// tellOnce tells next what it does not know of a set. The caller has the turn. It leaves out a set that has not been
// judged: whoever has taken it has it judged, and tells next after that.
func (s *Sets) tellOnce(one *set) {
	if u, untold := one.news(); untold {
		s.next.OnUpdate([]lb.Endpoints{u})
	}
	s.forget(one)
}

// news returns what next is to be told, once; false if there is nothing.
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

// forget drops a set of which nothing is known any more.
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

// serving returns the endpoints that get clients, and those that have left since next was told last. The caller has mu.
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

// lookUp returns the set of a service; nil if there is none.
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

// servicesOf returns the names of the services of updates.
func servicesOf(updates []lb.Endpoints) []string {
	names := make([]string, len(updates))
	for i := range updates {
		names[i] = updates[i].Service
	}
	return names
}
