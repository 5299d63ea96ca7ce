package discovery

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// troubles turn the errors of many watches into few log lines: one when a trouble begins, whichever watch saw it first, and one
// when the last watch is out of it. Safe for concurrent use.
type troubles struct {
	log hclog.Logger

	mu    sync.Mutex           // guards the following
	open  map[string]*trouble  // by key
	of    map[*reporter]string // key of the trouble that a watch is in
	ever  bool                 // Consul has answered a watch
	saved bool                 // there are sets of an earlier process; does not change
}

// A trouble is something wrong between here and Consul.
type trouble struct {
	kind    consul.Kind
	since   time.Time
	watches int    // that are in it
	service string // of the watch that saw it first
}

func newTroubles(log hclog.Logger) *troubles {
	return &troubles{log: log, open: map[string]*trouble{}, of: map[*reporter]string{}}
}

// troubleKey tells troubles apart. Losing Consul has a dozen texts in the course of one outage, and is one trouble for all. What is wrong
// with a single query is a trouble of its own, and so is the same query refused for another reason.
func troubleKey(k consul.Kind, w *reporter, err error) string {
	switch k {
	case consul.Refused, consul.Unable:
		return w.query.key() + consul.Reason(err)
	case consul.Throttled:
		return "throttled"
	case consul.Denied:
		return "denied"
	}
	return "lost"
}

// enter notes that w is in trouble since then. It is to be called for each failure.
func (t *troubles) enter(w *reporter, k consul.Kind, err error, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.forgotten {
		return
	}
	if k == consul.Lost && t.open[troubleKey(consul.Throttled, w, err)] != nil && consul.IsCutOff(err) && !isSlow(err) {
		k = consul.Throttled
	}
	key := troubleKey(k, w, err)
	if t.of[w] == key {
		return
	}
	t.leaveLocked(w)
	t.of[w] = key
	one := t.open[key]
	if one == nil {
		one = &trouble{kind: k, since: since, service: w.name()}
		t.open[key] = one
		t.logBeginLocked(k, w, err)
	}
	one.watches++
}

// leave notes that w has had a good answer.
func (t *troubles) leave(w *reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ever = true
	t.leaveLocked(w)
}

// forget notes that w is not wanted any more, which is no news of Consul. What befalls it from now on is of no interest.
func (t *troubles) forget(w *reporter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.forgotten = true
	key, in := t.of[w]
	if !in {
		return
	}
	delete(t.of, w)
	if one := t.open[key]; one.watches > 1 {
		one.watches--
	} else {
		delete(t.open, key)
	}
}

func (t *troubles) leaveLocked(w *reporter) {
	key, in := t.of[w]
	if !in {
		return
	}
	delete(t.of, w)
	one := t.open[key]
	if one.watches--; one.watches > 0 {
		return
	}
	delete(t.open, key)
	t.logEnd(one)
}

func (t *troubles) logBeginLocked(k consul.Kind, w *reporter, err error) {
	switch k {
	case consul.Refused:
		t.log.Error("consul refuses a query", "service", w.name(), "filter", w.query.Filter, "reason", consul.Reason(err))
	case consul.Unable:
		t.log.Warn("consul cannot answer a query, the service's endpoints stay as they are", "service", w.name(),
			"datacenter", w.query.Datacenter, "error", err)
	case consul.Denied:
		t.log.Error("consul denies access: the ACL token is wrong or lacks a right; endpoints stay as they are",
			"rights_needed", "service:read, node:read", "service", w.name(), "error", err)
	case consul.Throttled:
		t.log.Warn("consul refuses requests: too many at once from this host; until they get through endpoints stay as they are, and services that had none yet have none",
			"see", "limits.http_max_conns_per_client in the agent's configuration, or use its https port", "error", err)
	case consul.Lost:
		switch {
		case t.ever:
			t.log.Warn("consul is lost, endpoints stay as they are", "error", err)
		case t.saved:
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
