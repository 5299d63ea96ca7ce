package discovery

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// An origin says where sets are from. They belong to the cluster and the datacenter. As long as these are not known,
// they belong to the agent's address.
type origin struct {
	address string // of the agent; empty in files of versions that did not save it: it counts as any
	cluster consul.Cluster
}

// A relation is that of saved sets to the Consul that answers now.
type relation int

// The relations.
const (
	unrelated  relation = iota // it is not known whether they are of the same cluster
	ofSame                     // they are of the same cluster and datacenter
	ofRenamed                  // the trust domain is another: of another cluster, or of this one before it was wiped
	ofStranger                 // they are of another datacenter
)

// relation returns that of sets from o to a cluster.
func (o origin) relation(now consul.Cluster) relation {
	domain, datacenter := compare(o.cluster.TrustDomain, now.TrustDomain), compare(o.cluster.Datacenter, now.Datacenter)
	switch {
	case datacenter == ofStranger:
		return ofStranger
	case domain == ofStranger:
		return ofRenamed
	}
	return min(domain, datacenter)
}

// compare returns the relation of two names, of which an empty one is not known.
func compare(a, b string) relation {
	switch {
	case a == "" || b == "":
		return unrelated
	case a == b:
		return ofSame
	}
	return ofStranger
}

// at reports whether o is the agent at an address, as far as is known.
func (o origin) at(address string) bool { return o.address == "" || o.address == address }

const (
	// originTimeout bounds how long it may take to ask which cluster it is. A failure is remembered for originRetry.
	originTimeout = 5 * time.Second
	originRetry   = time.Second

	// originPatience is how long answers wait because Consul answers, but does not say which cluster it is. A server
	// that has just started needs some seconds.
	originPatience = 15 * time.Second
)

// origins finds out whose catalog the agent answers from, and how an earlier process's sets are related to that. Safe
// for concurrent use.
type origins struct {
	client *consul.Client

	mu      sync.Mutex // locked while the agent is asked; guards the following
	now     consul.Cluster
	known   bool      // now is all that can be known
	next    time.Time // until then the agent is not asked again; zero: it may be
	failing time.Time // when it first did not say, though it answered a query; zero: it always has
	earlier *saved    // the sets of an earlier process; nil: none, or they need no check
	told    bool      // that earlier is from another cluster
}

// find asks which cluster it is, unless that is known.
func (o *origins) find(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.findLocked(ctx)
}

func (o *origins) findLocked(ctx context.Context) {
	if o.known || time.Now().Before(o.next) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	found, err := o.client.Cluster(ctx)
	if err != nil {
		o.next = time.Now().Add(originRetry)
		if found == (consul.Cluster{}) { // what was known still is
			return
		}
	}
	o.now, o.known = found, err == nil
}

// forget has the agent asked again which cluster it is. It is to be called if the servers may have been wiped.
func (o *origins) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known, o.next = false, time.Time{}
}

// relate returns the relation of the earlier process's sets to the Consul that answers now. answered says that a query
// was answered. soon says that more may be known soon.
func (o *origins) relate(ctx context.Context, answered bool) (r relation, soon bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.findLocked(ctx)
	if answered && !o.known && o.failing.IsZero() {
		o.failing = time.Now()
	}
	return o.earlier.origin.relation(o.now), !o.known && (o.failing.IsZero() || time.Since(o.failing) < originPatience)
}

// tell notes that the earlier process's sets are of another cluster, and reports whether that is new.
func (o *origins) tell() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.told
	o.told = true
	return !before
}

// origin returns where the sets of now are from. Until that is known, the sets of an earlier process are from where
// that process got them.
func (o *origins) origin() origin {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := origin{o.client.Address(), o.now}
	if o.now == (consul.Cluster{}) && o.earlier != nil && o.earlier.origin.at(now.address) {
		now.cluster = o.earlier.origin.cluster
	}
	return now
}

// strangers reports whether the earlier process's sets are known to be of another cluster.
func (o *origins) strangers() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// checkOrigin drops the set of an earlier process if it is of another cluster, and takes it over if it comes from
// another address of the same cluster. a is the answer to a query, or err its error. As long as Consul cannot say which
// cluster it is, only the address counts. Servers that were wiped have another trust domain, so at the same address the
// set is dropped only for instances that are all new.
//
// checkOrigin returns how long to wait before the next query if the outcome of this one must not count, because Consul
// will soon be able to say; zero: it counts.
func (w *watch) checkOrigin(ctx context.Context, a *answer, err error) time.Duration {
	if w.inherited == nil || err != nil && consul.KindOf(err) == consul.Lost && consul.IsNetwork(err) {
		return 0
	}
	o := &w.consul.origins
	served := o.earlier.origin.at(w.consul.client.Address())
	r, soon := o.relate(ctx, err == nil)
	switch {
	case r == unrelated && soon && err == nil:
		return originRetry
	case r == unrelated, r == ofRenamed && served && !(err == nil && w.isReplaced(a)):
		return 0
	case r >= ofRenamed && served:
		if o.tell() {
			w.consul.logStrangers()
		}
		w.disown()
	case r == ofSame && !served:
		w.adopt(*w.inherited)
	}
	w.inherited = nil
	w.watchOver(ctx)
	return 0
}

// isReplaced reports whether an answer names instances, and none at a place of the set.
func (w *watch) isReplaced(a *answer) bool {
	all := convert(a.entries, w.query.Statuses).all
	places := placesOf(all)
	return len(all) > 0 && !slices.ContainsFunc(w.state.set, func(e lb.Endpoint) bool {
		_, taken := places[placeOf(e)]
		return taken
	})
}

// logStrangers warns that the saved sets are of another cluster, and moves them aside.
func (c *Consul) logStrangers() {
	earlier, now := c.origins.earlier.origin, c.origins.origin()
	c.options.Logger.Warn("saved endpoints are of another cluster or datacenter, they are not served any more",
		"saved_from", earlier.cluster.TrustDomain, "saved_datacenter", earlier.cluster.Datacenter,
		"consul_is", now.cluster.TrustDomain, "datacenter", now.cluster.Datacenter)
	if c.store != nil {
		c.store.setAside()
		c.store.markDirty()
	}
}

// disown drops the set of an earlier process.
func (w *watch) disown() {
	w.state, w.next = belief{}, question{}
	w.reporter.restore(savedSet{})
	w.publisher.disown()
}

// adopt takes over the set of an earlier process that asked at another address.
func (w *watch) adopt(s savedSet) {
	w.state.set, w.state.held, w.state.joined = s.endpoints, s.held, s.joined
	w.reporter.restore(s)
	w.publisher.adopt(s)
	if w.consul.store != nil {
		w.consul.store.markDirty()
	}
	w.reporter.logger().Info("saved endpoints are of the same cluster, they are served until consul answers",
		"endpoints", len(s.endpoints))
}
