package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
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
	ofStranger                 // they are not
)

// relation returns that of sets from o to a cluster.
func (o origin) relation(now consul.Cluster) relation {
	domain, datacenter := compare(o.cluster.TrustDomain, now.TrustDomain), compare(o.cluster.Datacenter, now.Datacenter)
	if domain == ofStranger || datacenter == ofStranger {
		return ofStranger
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
	failing time.Time // when it first did not say; zero: it always has
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
	if o.now = found; err != nil {
		now := time.Now()
		if o.next = now.Add(originRetry); o.failing.IsZero() {
			o.failing = now
		}
		return
	}
	o.known = true
}

// relate returns the relation of the earlier process's sets to the Consul that answers now. soon says that more may be
// known soon.
func (o *origins) relate(ctx context.Context) (r relation, soon bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.findLocked(ctx)
	return o.earlier.origin.relation(o.now), !o.known && time.Since(o.failing) < originPatience
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
// another address of the same cluster. err is that of a query. As long as Consul cannot say which cluster it is, only
// the address counts. checkOrigin returns how long to wait before the next query if the outcome of this one must not
// count, because Consul will soon be able to say; zero: it counts.
func (w *watch) checkOrigin(ctx context.Context, err error) time.Duration {
	if w.inherited == nil || err != nil && consul.KindOf(err) == consul.Lost && consul.IsNetwork(err) {
		return 0
	}
	o := &w.consul.origins
	served := o.earlier.origin.at(w.consul.client.Address())
	r, soon := o.relate(ctx)
	switch {
	case r == unrelated && soon && err == nil:
		return originRetry
	case r == unrelated:
		return 0
	case r == ofStranger && served:
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
