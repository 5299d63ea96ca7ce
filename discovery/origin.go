package discovery

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// An origin says where sets come from. Sets belong to a cluster and a datacenter. As long as these are unknown, sets
// belong to the agent's address.
type origin struct {
	address string // the agent's address; empty in files of old versions, and then equal to any address
	cluster consul.Cluster
}

// A relation says how saved sets are related to the Consul that answers now.
type relation int

// The relations.
const (
	unrelated  relation = iota // not known to be of the same cluster
	ofSame                     // of the same cluster and datacenter
	ofRenamed                  // the trust domain differs: another cluster, or the same one after its data was wiped
	ofStranger                 // of another datacenter
)

// relation returns how sets from o are related to the cluster now.
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

// compare returns the relation of two names. An empty name is unknown.
func compare(a, b string) relation {
	switch {
	case a == "" || b == "":
		return unrelated
	case a == b:
		return ofSame
	}
	return ofStranger
}

// at reports whether o is at one of the addresses of client, which all belong to one cluster. An unknown address of o
// counts as equal.
func (o origin) at(client *consul.Client) bool { return o.address == "" || client.Knows(o.address) }

const (
	// originTimeout limits a request for the cluster's identity. After a failed request, the next one follows
	// originRetry later.
	originTimeout = 5 * time.Second
	originRetry   = time.Second

	// originPatience is how long answers wait if Consul answers queries, but not which cluster it is. A server that has
	// just started needs some seconds.
	originPatience = 15 * time.Second
)

// origins finds out which cluster the agent belongs to, and how the sets of an earlier process are related to that
// cluster. origins is safe for concurrent use.
type origins struct {
	client *consul.Client

	mu      sync.Mutex // locked while the agent is asked; guards the following fields
	now     consul.Cluster
	known   bool      // now is complete
	site    uint64    // see consul.Client.Site; of the agent that was asked
	next    time.Time // the agent is not asked again before this time; zero: it may be asked
	failing time.Time // when the agent first answered a query but did not name its cluster; zero: never
	earlier *saved    // the sets of an earlier process; nil: none, or they need no check
	told    bool      // tell has noted that earlier belongs to another cluster
}

// find asks the agent for its cluster, unless the cluster is known.
func (o *origins) find(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.findLocked(ctx)
}

func (o *origins) findLocked(ctx context.Context) {
	if site := o.client.Site(); site != o.site { // another agent answers
		o.site, o.known, o.next = site, false, time.Time{}
	}
	if o.known || time.Now().Before(o.next) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, originTimeout)
	defer cancel()
	found, err := o.client.Cluster(ctx)
	if err != nil {
		o.next = time.Now().Add(originRetry)
		if found == (consul.Cluster{}) { // keep what was known
			return
		}
	}
	o.now, o.known = found, err == nil
}

// trustDomain returns the trust domain of the agent's cluster, or an empty text if it is not known.
func (o *origins) trustDomain(ctx context.Context) string {
	o.find(ctx)
	return o.origin().cluster.TrustDomain
}

// datacenter returns the agent's datacenter, or an empty text if it is not known.
func (o *origins) datacenter(ctx context.Context) string {
	o.find(ctx)
	return o.origin().cluster.Datacenter
}

// forget makes the next call ask the agent for its cluster again. Call forget if the servers may have been wiped.
func (o *origins) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known, o.next = false, time.Time{}
}

// relate returns how the sets of the earlier process are related to the Consul that answers now. answered says that
// Consul has answered a query. soon says that a call soon after may know more.
func (o *origins) relate(ctx context.Context, answered bool) (r relation, soon bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.findLocked(ctx)
	if answered && !o.known && o.failing.IsZero() {
		o.failing = time.Now()
	}
	return o.earlier.origin.relation(o.now), !o.known && (o.failing.IsZero() || time.Since(o.failing) < originPatience)
}

// tell notes that the sets of the earlier process belong to another cluster. tell reports whether that is new.
func (o *origins) tell() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.told
	o.told = true
	return !before
}

// origin returns the origin of the current sets. Until the cluster is known, origin returns the cluster of the earlier
// process's sets, if they come from the same address.
func (o *origins) origin() origin {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := origin{o.client.Address(), o.now}
	if o.now == (consul.Cluster{}) && o.earlier != nil && o.earlier.origin.at(o.client) {
		now.cluster = o.earlier.origin.cluster
	}
	return now
}

// strangers reports whether the sets of the earlier process are known to belong to another cluster.
func (o *origins) strangers() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// checkOrigin compares the cluster of the set that an earlier process has saved with the cluster that answers now.
// checkOrigin drops the set if the clusters differ. If the cluster is the same but the address has changed, checkOrigin
// takes the set over. a is the answer to a query, or err is its error. As long as Consul cannot name its cluster, only
// the address decides. Servers that were wiped have a new trust domain. At the same address, checkOrigin therefore
// drops the set only if all instances in the answer are new.
//
// checkOrigin returns zero if the outcome of the query counts. If Consul will soon be able to name its cluster,
// checkOrigin returns how long to wait before the next query.
func (w *watch) checkOrigin(ctx context.Context, a *answer, err error) time.Duration {
	if w.inherited == nil || err != nil && consul.KindOf(err) == consul.Lost && consul.IsNetwork(err) {
		return 0
	}
	o := &w.consul.origins
	served := o.earlier.origin.at(w.consul.client)
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

// isReplaced reports whether an answer names instances, and none of them is at an address of the set.
func (w *watch) isReplaced(a *answer) bool {
	all := a.instances(&w.query).all
	places := placesOf(all)
	return len(all) > 0 && !slices.ContainsFunc(w.state.set, func(e lb.Endpoint) bool {
		_, taken := places[e.Place()]
		return taken
	})
}

// logStrangers logs a warning that the saved sets belong to another cluster, and moves their file aside.
func (c *Consul) logStrangers() {
	earlier, now := c.origins.earlier.origin, c.origins.origin()
	c.options.Logger.Warn("saved endpoints belong to another cluster or datacenter, lictor no longer uses them",
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

// adopt takes over the set of an earlier process that used another address of the same cluster.
func (w *watch) adopt(s savedSet) {
	w.state.set, w.state.held, w.state.joined = s.endpoints, s.held, s.joined
	w.reporter.restore(s)
	w.publisher.adopt(s)
	if w.consul.store != nil {
		w.consul.store.markDirty()
	}
	w.reporter.logger().Info("saved endpoints belong to the same cluster, lictor uses them until consul answers",
		"endpoints", len(s.endpoints))
}
