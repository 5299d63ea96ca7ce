package discovery

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// troubles turns the errors of many watches into few log lines. troubles logs a trouble when the first watch enters the
// trouble, and again when the last watch leaves the trouble. troubles is safe for concurrent use.
type troubles struct {
	log hclog.Logger

	mu       sync.Mutex           // guards the following fields
	open     map[string]*trouble  // by key
	of       map[*reporter]string // key of the trouble that each watch is in
	ever     bool                 // Consul has answered a watch at least once
	hasSaved bool                 // an earlier process has saved sets; never changes
}

// A trouble is a problem between Lictor and Consul that affects one or more watches.
type trouble struct {
	kind    consul.Kind
	since   time.Time
	watches int    // number of watches in the trouble
	service string // service of the first watch in the trouble

	causes map[string]bool // causes that were logged, see consul.Cause
}

// maxCauses is how many causes of one trouble are logged. Causes that come and go are not worth a log line.
const maxCauses = 8

// settle is the time at the beginning of an outage in which network causes are not logged again. In that time,
// connections first break, and then new connections are refused.
const settle = 10 * time.Second

func newTroubles(log hclog.Logger) *troubles {
	return &troubles{log: log, open: map[string]*trouble{}, of: map[*reporter]string{}}
}

// troubleKey returns the key of the trouble to which err belongs. Errors of an outage of Consul have many texts, but
// are one trouble for all watches. A problem with one query is a trouble of its own, for each reason.
func troubleKey(k consul.Kind, r *reporter, err error) string {
	switch k {
	case consul.Refused, consul.Unable:
		return r.query.canonical() + consul.Reason(err)
	case consul.Throttled:
		return "throttled"
	case consul.Denied:
		return "denied"
	}
	return "lost"
}

// enter records that r has been in trouble since a given time. Call enter for each failure that should be logged.
func (t *troubles) enter(r *reporter, k consul.Kind, err error, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.forgotten {
		return
	}
	throttled := t.open[troubleKey(consul.Throttled, r, err)] != nil
	if k == consul.Lost && throttled && consul.IsCutOff(err) && !isSlow(err) {
		k = consul.Throttled
	}
	key := troubleKey(k, r, err)
	if t.of[r] == key {
		t.causedLocked(t.open[key], err)
		return
	}
	t.leaveLocked(r)
	t.of[r] = key
	one := t.open[key]
	if one == nil {
		causes := map[string]bool{consul.Cause(err): true}
		one = &trouble{kind: k, since: since, service: r.sharerNames(), causes: causes}
		t.open[key] = one
		t.logBeginLocked(k, r, err)
	}
	one.watches++
}

// causedLocked logs that Consul is still lost, if the cause is new in this outage.
func (t *troubles) causedLocked(one *trouble, err error) {
	cause := consul.Cause(err)
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
	t.leaveLocked(r)
}

// forget removes r from its trouble without a log line, because r is no longer wanted. Later errors of r are ignored.
func (t *troubles) forget(r *reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.forgotten = true
	key, in := t.of[r]
	if !in {
		return
	}
	delete(t.of, r)
	if one := t.open[key]; one.watches > 1 {
		one.watches--
	} else {
		delete(t.open, key)
	}
}

// leaveLocked removes r from its trouble. If r was the last watch in the trouble, leaveLocked logs the end of the
// trouble.
func (t *troubles) leaveLocked(r *reporter) {
	key, in := t.of[r]
	if !in {
		return
	}
	delete(t.of, r)
	one := t.open[key]
	if one.watches--; one.watches > 0 {
		return
	}
	delete(t.open, key)
	t.logEnd(one)
}

func (t *troubles) logBeginLocked(k consul.Kind, r *reporter, err error) {
	switch k {
	case consul.Refused:
		t.log.Error("consul refuses a query", "service", r.sharerNames(), "filter", r.query.Filter,
			"reason", consul.Reason(err))
	case consul.Unable:
		t.log.Warn("consul cannot answer a query, the service's endpoints stay as they are", "service", r.sharerNames(),
			"datacenter", r.query.Datacenter, "error", err)
	case consul.Denied:
		t.log.Error("consul denies access: the ACL token is wrong or lacks a right; "+
			"endpoints that it hides stay in use",
			"rights_needed", "service:read, node:read", "service", r.sharerNames(), "error", err)
	case consul.Throttled:
		t.log.Warn("consul refuses requests: too many at once from this host; "+
			"until consul accepts them, endpoints stay as they are, "+
			"and services without endpoints stay without",
			"see", "limits.http_max_conns_per_client in the agent's configuration, or use its https port", "error", err)
	case consul.Lost:
		switch {
		case t.ever:
			t.log.Warn("consul is lost, endpoints stay as they are", "error", err)
		case t.hasSaved:
			t.log.Warn("consul cannot be reached, saved endpoints stay in use until consul answers", "error", err)
		default:
			t.log.Warn("consul cannot be reached, services have no endpoints until consul answers", "error", err)
		}
	}
}

func (t *troubles) logEnd(one *trouble) {
	after := time.Since(one.since).Round(time.Millisecond)
	switch one.kind {
	case consul.Refused, consul.Unable:
		t.log.Info("consul answers the query", "service", one.service, "after", after)
	case consul.Denied:
		t.log.Info("consul permits access again", "after", after)
	case consul.Throttled:
		t.log.Info("consul accepts all requests again", "after", after)
	case consul.Lost:
		t.log.Info("consul answers again", "after", after)
	}
}
