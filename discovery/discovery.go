// Package discovery finds the endpoints of services: in the catalog of a Consul agent, or in a list. Each place is a
// [Source], which passes sets of endpoints to a [Sink], as a rule the balancer:
//
//	consul, err := discovery.NewConsul(discovery.ConsulOptions{
//		Address: "127.0.0.1:8500",
//		Watches: []discovery.Watch{{Service: "web", Query: discovery.Query{Service: "web", Tags: []string{"v2"}}}},
//	})
//	...
//	err = consul.Run(ctx, balancer) // until ctx ends
//
// An error is never an empty set. Whatever goes wrong between Lictor and Consul, services keep the endpoints that
// they had. An empty set is passed on only when Consul's servers say that there is no instance.
//
//   - Sets are saved, so that after a restart they can be served before Consul answers: [ConsulOptions].StateDir.
//   - The leader has to confirm a set that is empty or sharply smaller. Lost endpoints then stay for a while:
//     [Guard].
//   - A service can have several sources, in order of preference: [Watch].
//   - Thousands of queries share the few connections that an agent allows: [ConsulOptions].MaxWatches.
//   - [Consul.Explain] says what is known of a service, and why.
//
// Besides the sets, the sink is told which endpoints have left, and for which reason. [Leaves] says how certain that
// must be.
//
// Discovery knows the health of instances from Consul only. The balancer finds out that an instance does not answer
// from here.
package discovery

import (
	"context"

	"github.com/lictor-proxy/lictor/lb"
)

// A Sink takes sets of endpoints. The balancers of package lb are sinks.
type Sink interface {
	// OnUpdate replaces the sets of the services that are named in updates, and of no others. Several goroutines may
	// call it at once, but never two for the same service. It must not block for long, and must not keep or change
	// updates.
	OnUpdate(updates []lb.Endpoints)
}

// A Source is a place that endpoints come from.
type Source interface {
	// Run sends the set of each service to sink as soon as it is known, and again when it has changed. It returns
	// nil when ctx has ended and all its goroutines have. Any other error means that it has not started. A Source
	// runs once.
	Run(ctx context.Context, sink Sink) error
}
