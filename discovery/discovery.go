// Package discovery finds the endpoints of services, in the catalog of a Consul agent or in a static list. A [Source]
// passes sets of endpoints to a [Sink], which is usually the load balancer:
//
//	consul, err := discovery.NewConsul(discovery.ConsulOptions{
//		Address: "127.0.0.1:8500",
//		Watches: []discovery.Watch{{Service: "web", Query: discovery.Query{Service: "web", Tags: []string{"v2"}}}},
//	})
//	...
//	err = consul.Run(ctx, balancer) // until ctx ends
//
// An error never empties a set. Whatever fails between Lictor and Consul, each service keeps the endpoints that it had.
// A Source passes on an empty set only when Consul's servers say that the service has no instances.
//
//   - [ConsulOptions].StateDir saves sets on disk, so that a restarted Lictor can serve them before Consul answers.
//   - A [Guard] makes Consul's leader confirm a set that is empty or sharply smaller. Lost endpoints stay for a while.
//   - A [Watch] can have several tiers of endpoints for one service, in order of preference.
//   - [ConsulOptions].MaxWatches lets thousands of queries share the few connections that an agent allows.
//   - A [Query] can ask for the ways into Consul's service mesh, and a [Watch] can follow a discovery chain.
//   - [Consul.Explain] reports what is known about a service, and why an instance is not in its set.
//
// A Source also tells the sink which endpoints have left, and why. [Leaves] says how exactly the reason must be known.
//
// Package discovery learns the health of instances from Consul only. The balancer notices when an instance cannot be
// reached from this host.
package discovery

import (
	"context"

	"github.com/lictor-proxy/lictor/lb"
)

// A Sink receives sets of endpoints. The balancers of package lb are sinks.
type Sink interface {
	// OnUpdate replaces the sets of the services that are named in updates. Other services keep their sets. Several
	// goroutines may call OnUpdate at once, but never two for the same service. OnUpdate must not block for long, and
	// must not keep or change updates.
	OnUpdate(updates []lb.Endpoints)
}

// A Source is a place that endpoints come from.
type Source interface {
	// Run sends the set of each service to sink as soon as the set is known, and again when the set has changed. Run
	// returns nil after ctx has ended and all goroutines of the Source have ended. Any other error means that Run has
	// not started. Run may be called only once.
	Run(ctx context.Context, sink Sink) error
}
