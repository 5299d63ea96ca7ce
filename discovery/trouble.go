package discovery

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// troubles turn the errors of many watches into few log lines: one when the first watch is in a trouble, and one
// when the last watch is out of it. Safe for concurrent use.
type troubles struct {
	log hclog.Logger

	mu       sync.Mutex           // guards the following
	open     map[string]*trouble  // by key
	of       map[*reporter]string // key of the trouble that each watch is in
	ever     bool                 // Consul has answered a watch
	hasSaved bool                 // an earlier process has saved sets; does not change
}

// A trouble is something that is wrong between Lictor and Consul.
type trouble struct {
	kind    consul.Kind
	since   time.Time
	watches int    // watches that are in it
	service string // of the first watch that was in it

	causes map[string]bool // that were logged; see consul.Cause
}

// maxCauses is how many causes of one trouble are logged. Causes that come and go are no news.
const maxCauses = 8

// settle is the time at the beginning of an outage in which causes in the network are no news: connections break, and
// then new ones are refused.
const settle = 10 * time.Second

func newTroubles(log hclog.Logger) *troubles {
	return &troubles{log: log, open: map[string]*trouble{}, of: map[*reporter]string{}}
}

// troubleKey returns the same key for errors of one trouble. An outage of Consul has a dozen texts, and is one
// trouble for all watches. What is wrong with one query is a trouble of its own, for each reason.
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

// enter notes that r has been in trouble since a time. It is to be called for each failure that is worth it.
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

// causedLocked logs that Consul is lost for another reason than any before in this outage.
func (t *troubles) causedLocked(one *trouble, err error) {
	cause := consul.Cause(err)
	if one.kind != consul.Lost || one.causes[cause] || len(one.causes) >= maxCauses {
		return
	}
	one.causes[cause] = true
	if consul.IsNetwork(err) && time.Since(one.since) < settle {
		return
	}
	t.log.Warn("consul is still lost, for another reason now", "error", err)
}

// leave notes that r has had an answer that was believed.
func (t *troubles) leave(r *reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ever = true
	t.leaveLocked(r)
}

// forget takes r out of its trouble without a log line, as r is not wanted any more. Its later errors are ignored.
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

// leaveLocked takes r out of its trouble, and logs the end of the trouble if r was the last.
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
			"until they get through endpoints stay as they are, "+
			"and services that had none yet have none",
			"see", "limits.http_max_conns_per_client in the agent's configuration, or use its https port", "error", err)
	case consul.Lost:
		switch {
		case t.ever:
			t.log.Warn("consul is lost, endpoints stay as they are", "error", err)
		case t.hasSaved:
			t.log.Warn("consul cannot be reached, saved endpoints stay in use until it can", "error", err)
		default:
			t.log.Warn("consul cannot be reached, its services have no endpoints until it can", "error", err)
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
		t.log.Info("consul lets all requests through again", "after", after)
	case consul.Lost:
		t.log.Info("consul answers again", "after", after)
	}
}
