package discovery

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// troubles turns the errors of many watches into few log lines and events: one for each cause, with the services that
// it concerns. A trouble begins when the first watch enters it, and ends when the last watch leaves it. Watches that
// enter or leave at about the same time share a line. troubles is safe for concurrent use.
type troubles struct {
	log     hclog.Logger
	onEvent func(Event) // may be nil

	mu       sync.Mutex           // guards the following fields
	open     map[string]*trouble  // by key
	of       map[*reporter]string // key of the trouble that each watch is in
	awaited  map[string]*trouble  // by service, the trouble that a former watch of it was in; its end will be told
	ever     bool                 // Consul has answered a watch at least once
	hasSaved bool                 // an earlier process has saved sets; never changes
	closed   bool
}

// A trouble is a problem between Lictor and Consul that affects one or more watches.
type trouble struct {
	key   string
	kind  consul.Kind
	place string // what Consul cannot answer for, such as "datacenter dc2"; empty: anything
	since time.Time

	watches map[*reporter]bool // the watches in the trouble; true: a begin line has named them
	fresh   map[string]bool    // services of named watches that have left, and are not named in an end line yet
	err     error              // the error that the next begin line names; nil: none
	filter  string             // filter of the watch with that error
	chain   bool               // Lictor cannot follow a discovery chain

	told    time.Time   // when the last begin line was logged; zero: none was
	begin   *time.Timer // fires when the next begin line is due; nil: none is due
	entered time.Time   // when the first watch entered that this line will name

	end      *time.Timer // fires when the next end line is due although the trouble goes on; nil: none is due
	answered time.Time   // when the first of the services in fresh became fresh

	causes map[string]bool // causes that were logged, see consul.Cause
}

// maxCauses is how many causes of one trouble are logged. Causes that come and go are not worth a log line.
const maxCauses = 8

// settle is the time at the beginning of an outage in which network causes are not logged again. In that time,
// connections first break, and then new connections are refused.
const settle = 10 * time.Second

// Watches that enter or leave a trouble within these times share a line.
const (
	gatherQuiet = 2 * time.Second  // from the last watch that enters until the line about all that have entered
	gatherMost  = 10 * time.Second // from the first watch that enters until that line
	gatherMore  = 30 * time.Second // between the lines about watches that enter later
	gatherEnd   = 15 * time.Second // from the first watch that leaves until a line, although others stay
)

func newTroubles(log hclog.Logger, onEvent func(Event)) *troubles {
	return &troubles{log: log, onEvent: onEvent, open: map[string]*trouble{}, of: map[*reporter]string{},
		awaited: map[string]*trouble{}}
}

// troubleKey returns the key of the trouble to which err belongs, and the place that Consul cannot answer for. Errors
// of an outage of Consul have many texts, but are one trouble for all watches. A datacenter or a peer that Consul
// cannot reach is one trouble for all watches of that place. A query that Consul refuses is a trouble of its own, for
// each reason.
func troubleKey(k consul.Kind, r *reporter, err error) (key, place string) {
	var chain *ChainError
	if errors.As(err, &chain) {
		return "chain " + chain.Reason, ""
	}
	switch k {
	case consul.Refused:
		return "refused " + r.query.Filter + "\n" + consul.Reason(err), ""
	case consul.Unable:
		switch q := r.query; {
		case q.Prepared != "":
			place = "prepared query " + q.Prepared
		case q.Peer != "":
			place = "peer " + q.Peer
		case q.Datacenter != "":
			place = "datacenter " + q.Datacenter
		default:
			place = "service " + q.Service
		}
		return "unable " + place + "\n" + consul.Reason(err), place
	case consul.Throttled:
		return "throttled", ""
	case consul.Denied:
		return "denied", ""
	}
	return "lost", ""
}

// enter records that r has been in trouble since a given time. Call enter for each failure that should be logged.
func (t *troubles) enter(r *reporter, k consul.Kind, err error, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.forgotten || t.closed {
		return
	}
	throttled := t.open["throttled"] != nil
	if k == consul.Lost && throttled && consul.IsCutOff(err) && !isSlow(err) {
		k = consul.Throttled
	}
	key, place := troubleKey(k, r, err)
	if t.of[r] == key {
		t.causedLocked(t.open[key], r, err)
		return
	}
	t.leaveLocked(r, false)
	t.of[r] = key
	one := t.open[key]
	if one == nil {
		one = &trouble{
			key: key, kind: k, place: place, since: since,
			watches: map[*reporter]bool{}, fresh: map[string]bool{}, causes: map[string]bool{},
		}
		_, one.chain = err.(*ChainError)
		t.open[key] = one
	}
	one.watches[r] = false
	one.note(err, r)
	one.causes[consul.Cause(err)] = true
	t.gatherLocked(one, time.Now())
}

// note keeps err for the next begin line, unless there is an error that says more: why Consul cannot be asked says more
// than that a connection broke.
func (one *trouble) note(err error, r *reporter) {
	if one.err == nil || consul.IsCutOff(one.err) && !consul.IsCutOff(err) {
		one.err, one.filter = err, r.query.Filter
	}
}

// gatherLocked makes the next begin line due when no further watch seems to enter.
func (t *troubles) gatherLocked(one *trouble, now time.Time) {
	quiet := gatherQuiet
	if one.kind == consul.Throttled { // the watches take turns, so it takes longer until all have met the refusal
		quiet = gatherMost
	}
	if one.begin == nil {
		one.entered = now
		one.begin = time.AfterFunc(quiet, func() { t.tellBegin(one) })
	}
	wait := min(quiet, gatherMost-now.Sub(one.entered))
	one.begin.Reset(max(wait, gatherMore-now.Sub(one.told)))
}

// causedLocked logs that Consul is still lost, if the cause is new in this outage.
func (t *troubles) causedLocked(one *trouble, r *reporter, err error) {
	cause := consul.Cause(err)
	if !one.watches[r] {
		one.causes[cause] = true
		one.note(err, r)
		return
	}
	if one.kind != consul.Lost || one.causes[cause] || len(one.causes) >= maxCauses {
		return
	}
	one.causes[cause] = true
	if consul.IsNetwork(err) && time.Since(one.since) < settle {
		return
	}
	t.log.Warn("consul is still lost, now for another reason", "error", err)
}

// leave records that r has believed an answer.
func (t *troubles) leave(r *reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ever = true
	t.leaveLocked(r, true)
	if len(t.awaited) == 0 {
		return
	}
	for _, name := range *r.sharers.Load() {
		if one := t.awaited[name]; one != nil {
			delete(t.awaited, name)
			t.freshLocked(one, name, gatherQuiet)
		}
	}
}

// forget removes r from its trouble without a log line, because r is no longer wanted. Later errors of r are ignored.
// If a line has named a service of r that stays wanted, the end of its trouble is told when another watch of that
// service is believed.
func (t *troubles) forget(r *reporter, stays func(service string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.forgotten = true
	if one := t.open[t.of[r]]; one != nil && one.watches[r] {
		for _, name := range *r.sharers.Load() {
			if stays(name) {
				t.awaited[name] = one
			}
		}
	}
	t.leaveLocked(r, false)
}

// keep forgets the troubles of services that are not wanted any more.
func (t *troubles) keep(stays func(service string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.awaited, func(service string, _ *trouble) bool { return !stays(service) })
}

// freshLocked notes that a service has left a trouble. A line tells that after a time.
func (t *troubles) freshLocked(one *trouble, service string, after time.Duration) {
	one.fresh[service] = true
	if one.end == nil {
		one.answered = time.Now()
		one.end = time.AfterFunc(after, func() { t.tellEnd(one) })
	}
}

// leaveLocked removes r from its trouble. If the services of r are fresh and a line has named them, the end of the
// trouble will be told: at once if r was the last watch in the trouble.
func (t *troubles) leaveLocked(r *reporter, fresh bool) {
	key, in := t.of[r]
	if !in {
		return
	}
	delete(t.of, r)
	one := t.open[key]
	if one.watches[r] && fresh {
		for _, name := range *r.sharers.Load() {
			delete(t.awaited, name)
			t.freshLocked(one, name, gatherEnd)
		}
	}
	if delete(one.watches, r); len(one.watches) == 0 {
		t.tellEndLocked(one)
		one.stop()
		delete(t.open, key)
	}
}

// stop stops the timers of a trouble that is over.
func (one *trouble) stop() {
	for _, timer := range []*time.Timer{one.begin, one.end} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// tellBegin logs the services that have entered the trouble and are not named yet.
func (t *troubles) tellBegin(one *trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.open[one.key] != one {
		return
	}
	one.begin = nil
	services := map[string]bool{}
	for r, named := range one.watches {
		if named {
			continue
		}
		one.watches[r] = true
		for _, name := range *r.sharers.Load() {
			services[name] = true
			delete(one.fresh, name)
		}
	}
	if len(services) == 0 {
		return
	}
	names := sorted(services)
	if one.told.IsZero() || !one.isOfAgent() {
		t.beginLocked(one, names)
	}
	t.begunLocked(one, names)
	one.told, one.err = time.Now(), nil
}

// isOfAgent reports whether the trouble concerns all queries to the agent, sooner or later. The log then does not
// repeat it for the watches that enter it later.
func (one *trouble) isOfAgent() bool { return one.kind == consul.Lost || one.kind == consul.Throttled }

// tellEnd logs the services that have left the trouble.
func (t *troubles) tellEnd(one *trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.tellEndLocked(one)
	}
}

func (t *troubles) tellEndLocked(one *trouble) {
	one.end = nil
	if services := sorted(one.fresh); len(services) > 0 {
		clear(one.fresh)
		t.endedLocked(one, services)
	}
}

// close ends all timers. Nothing is logged afterwards.
func (t *troubles) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, one := range t.open {
		one.stop()
	}
}

func sorted(names map[string]bool) []string { return slices.Sorted(maps.Keys(names)) }
