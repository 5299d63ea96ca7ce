package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/allowance"
)

// These constants limit the lines of a journal: first some at once, and then one in each interval.
const (
	serviceLines, serviceLineEvery = 10, time.Minute
	allLines, allLinesEvery        = 50, 2 * time.Second

	restAfter = 5 * time.Second // from the first change without a line until the lines about the rest
	restEvery = time.Minute     // at least this between lines about the rest

	mostNames   = 5    // names in one line
	pruneLimits = 1024 // number of services with a limit from which complete ones are forgotten
)

// A journal logs what happens to endpoints. Endpoints that join or leave a service together share a line. A storm of
// changes is cut short: the journal then says only how many more there were. What an operator does has a limit of its
// own, so that a storm hides none of it. A journal is safe for concurrent use.
type journal struct {
	log hclog.Logger

	mu     sync.Mutex                       // guards the fields below
	limits map[limitKey]allowance.Allowance // by service; those of all services together have an empty name
	prune  int                              // number of limits from which complete ones are forgotten
	rest   map[Kind]*restOfKind             // what had no line since the last lines about the rest
	due    *time.Timer                      // fires when the rest is due; nil if there is no rest
	told   time.Time                        // when the last lines about the rest were logged
	closed bool
}

// A limitKey identifies a limit. What operators do has limits apart from what happens by itself.
type limitKey struct {
	service  string
	operator bool
}

// A restOfKind counts the events of a kind that had no line.
type restOfKind struct {
	endpoints int
	services  map[string]bool
}

func newJournal(log hclog.Logger) *journal {
	return &journal{
		log: log, limits: map[limitKey]allowance.Allowance{}, prune: pruneLimits, rest: map[Kind]*restOfKind{},
	}
}

// An entry is one line: what has happened to endpoints of one service at once.
type entry struct {
	kind    Kind
	service string
	what    []string // for each endpoint: its name and address, or a description of what happened
	name    string   // of the only endpoint; empty if there may be several
}

// headlines are the log messages of a kind: for a line, and for the rest.
type headlines struct{ line, rest string }

// headlinesOf returns the messages of a kind; they are empty if the journal does not log that kind. The other kinds are
// logged where they come from.
func headlinesOf(k Kind) headlines {
	switch k {
	case KindJoined:
		return headlines{"endpoints joined", "more endpoints joined"}
	case KindLeft:
		return headlines{"endpoints left", "more endpoints left"}
	case KindChanged:
		return headlines{"endpoints changed", "more endpoints changed"}
	case KindEjected:
		return headlines{"endpoint ejected", "more endpoints ejected"}
	case KindReturned:
		return headlines{"endpoint gets clients again", "more endpoints get clients again"}
	case KindDenied:
		return headlines{"endpoint denies connections", "more endpoints deny connections"}
	case KindAllowed:
		return headlines{"endpoint allows connections again", "more endpoints allow connections again"}
	case KindDrained:
		return headlines{"endpoint drained", "more endpoints drained"}
	case KindUndrained:
		return headlines{"endpoint undrained", "more endpoints undrained"}
	}
	return headlines{}
}

// note logs events that have happened together.
func (j *journal) note(events []Event) {
	entries := entriesOf(events)
	if len(entries) == 0 || !j.log.IsInfo() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	now := time.Now()
	for _, e := range entries {
		if j.allowsLocked(now, e) {
			e.log(j.log)
		} else {
			j.leaveOutLocked(now, e)
		}
	}
}

// entriesOf groups events. The endpoints that join, leave or change are one entry for each service and kind.
func entriesOf(events []Event) (entries []entry) {
	for _, e := range events {
		if headlinesOf(e.Kind).line == "" || e.judged {
			continue
		}
		switch e.Kind {
		case KindJoined, KindLeft, KindChanged:
			same := func(x entry) bool { return x.kind == e.Kind && x.service == e.Service }
			if i := slices.IndexFunc(entries, same); i >= 0 {
				entries[i].what = append(entries[i].what, e.Text)
				continue
			}
			entries = append(entries, entry{kind: e.Kind, service: e.Service, what: []string{e.Text}})
		default:
			what := strings.TrimPrefix(e.Text, e.Endpoint+" ")
			entries = append(entries, entry{e.Kind, e.Service, []string{what}, e.Endpoint})
		}
	}
	return entries
}

func (e *entry) log(log hclog.Logger) {
	headline := headlinesOf(e.kind).line
	if e.name != "" {
		log.Info(headline, "service", e.service, "endpoint", e.name, "detail", e.what[0])
		return
	}
	log.Info(headline, "service", e.service, "number", len(e.what), "endpoints", SomeOf(e.what))
}

// SomeOf joins the first of names, and says how many more there are.
func SomeOf(names []string) string {
	if len(names) <= mostNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNames], ", "), len(names)-mostNames)
}

// allowsLocked reports whether e may have a line now.
func (j *journal) allowsLocked(now time.Time, e entry) bool {
	operator := e.kind == KindDrained || e.kind == KindUndrained
	return j.takeLocked(now, limitKey{e.service, operator}, serviceLines, serviceLineEvery) &&
		j.takeLocked(now, limitKey{"", operator}, allLines, allLinesEvery)
}

func (j *journal) takeLocked(now time.Time, key limitKey, atOnce int, every time.Duration) bool {
	if len(j.limits) >= j.prune {
		maps.DeleteFunc(j.limits, func(_ limitKey, a allowance.Allowance) bool { return a.IsComplete(now) })
		j.prune = max(pruneLimits, 2*len(j.limits))
	}
	a := j.limits[key]
	allowed := a.Take(now, atOnce, every)
	j.limits[key] = a
	return allowed
}

// leaveOutLocked counts e for the lines about the rest, and arranges for these lines.
func (j *journal) leaveOutLocked(now time.Time, e entry) {
	r := j.rest[e.kind]
	if r == nil {
		r = &restOfKind{services: map[string]bool{}}
		j.rest[e.kind] = r
	}
	r.endpoints += len(e.what)
	r.services[e.service] = true
	if j.due == nil {
		j.due = time.AfterFunc(max(restAfter, restEvery-now.Sub(j.told)), j.tellRest)
	}
}

// tellRest logs the rest.
func (j *journal) tellRest() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.tellRestLocked()
	}
}

func (j *journal) tellRestLocked() {
	for _, kind := range slices.Sorted(maps.Keys(j.rest)) {
		r := j.rest[kind]
		names := slices.Sorted(maps.Keys(r.services))
		j.log.Info(headlinesOf(kind).rest, "number", r.endpoints, "services", len(names), "of", SomeOf(names))
	}
	clear(j.rest)
	j.due, j.told = nil, time.Now()
}

// close logs the rest, and then ends the journal.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.due != nil {
		j.due.Stop()
	}
	j.tellRestLocked()
	j.closed = true
}
