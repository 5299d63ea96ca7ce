package endpoints

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A Judge decides which endpoints must not get clients. *cycles.Detector is one. Sets call a Judge from one goroutine
// at a time, and hold no lock that the Judge could need. A Judge must not block.
type Judge interface {
	// Judge replaces the sets of the services in updates. Judge returns the verdicts, by service and endpoint ID, of
	// each service with changed verdicts, even outside updates. Endpoints without a verdict may get clients. Judge must
	// not keep or change updates.
	Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict
}

// Judges returns a Judge that combines several. If several of them forbid an endpoint, the verdict of the first one is
// used.
func Judges(all ...Judge) Judge {
	j := &judges{all: all}
	for range all {
		j.verdicts = append(j.verdicts, map[string]map[string]cycles.Verdict{})
	}
	return j
}

type judges struct {
	all      []Judge
	verdicts []map[string]map[string]cycles.Verdict // what each of all returned last, by service
}

// Judge implements Judge.
func (j *judges) Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict {
	changed := map[string]map[string]cycles.Verdict{}
	for i, one := range j.all {
		for service, verdicts := range one.Judge(updates) {
			changed[service] = nil
			j.verdicts[i][service] = verdicts
			if len(verdicts) == 0 {
				delete(j.verdicts[i], service)
			}
		}
	}
	for service := range changed {
		together := map[string]cycles.Verdict{}
		for i := len(j.all) - 1; i >= 0; i-- { // the first Judge last, so that its verdicts win
			maps.Copy(together, j.verdicts[i][service])
		}
		changed[service] = together
	}
	return changed
}

// A ban is the reason why an endpoint must not get clients, and when it began.
type ban struct {
	cycles.Verdict
	since time.Time
}

// Reconsider judges all sets again, because the Judge has new information. When Reconsider returns, the next sink has
// received all services with changed verdicts.
func (s *Sets) Reconsider() { s.tell(s.rejudge(s.services()), nil) }

// ReconsiderService is Reconsider for the set of one service.
func (s *Sets) ReconsiderService(service string) { s.tell(s.rejudge([]string{service}), nil) }

// rejudge judges the present sets of services, and stores the verdicts. rejudge returns the sets with changed verdicts,
// sorted by service. The returned sets may belong to other services too.
func (s *Sets) rejudge(services []string) (changed []*set) {
	if s.judge == nil {
		return nil
	}
	s.judging.Lock()
	defer s.judging.Unlock()
	sets, taken := make([]lb.Endpoints, len(services)), make([]uint64, len(services))
	for i, name := range services {
		sets[i], taken[i] = s.whole(name)
	}
	now := time.Now()
	for service, verdicts := range s.judge.Judge(sets) {
		if one := s.lookUp(service); one != nil { // nil if the service has been removed meanwhile
			one.mu.Lock()
			one.forbid(verdicts, now, s.events)
			one.mu.Unlock()
			changed = append(changed, one)
		}
	}
	for i, name := range services {
		if one := s.lookUp(name); one != nil {
			one.mu.Lock()
			one.judged = taken[i]
			one.mu.Unlock()
		}
	}
	slices.SortFunc(changed, func(a, b *set) int { return cmp.Compare(a.service, b.service) })
	return changed
}

// whole returns all endpoints of a service, including those that get no clients, and the number of updates so far.
func (s *Sets) whole(service string) (u lb.Endpoints, taken uint64) {
	u = lb.Endpoints{Service: service, Removed: true}
	if one := s.lookUp(service); one != nil {
		one.mu.Lock()
		defer one.mu.Unlock()
		u.Endpoints, u.Removed, taken = one.endpoints, !one.known, one.taken
	}
	return u, taken
}

// forbid stores the verdicts on the set, by ID, and adds the differences to events. The caller must hold mu.
func (one *set) forbid(verdicts map[string]cycles.Verdict, now time.Time, events *Events) {
	before, news := one.forbidden, []Event(nil)
	one.forbidden = map[string]ban{}
	one.untold = one.untold || one.known
	for _, id := range slices.Sorted(maps.Keys(verdicts)) {
		b, is := before[id]
		if !is || b.Verdict != verdicts[id] {
			b = ban{verdicts[id], now}
			news = append(news,
				Event{Time: now, Kind: KindOut, Service: one.service, Endpoint: id, Text: id + ": " + b.Text})
			if at, there := find(one.endpoints, id); there && b.Critical {
				one.left = append(one.left, lb.Departure{Endpoint: one.endpoints[at], Why: lb.Critical})
			}
		}
		one.forbidden[id] = b
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, stays := verdicts[id]; stays {
			continue
		}
		if _, there := find(one.endpoints, id); there {
			text := id + " gets clients again"
			news = append(news,
				Event{Time: now, Kind: KindReturned, Service: one.service, Endpoint: id, Text: text, judged: true})
		}
	}
	events.Add(news...)
}
