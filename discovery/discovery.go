// Package discovery knows where the endpoints of services come from: a Consul catalog, or a list in the configuration. Each is a
// [Source] that feeds a [Sink], which usually is the balancer:
//
//	consul, err := discovery.NewConsul(discovery.ConsulOptions{
//		Address: "127.0.0.1:8500",
//		Watches: []discovery.Watch{{Service: "web", Query: discovery.Query{Service: "web", Tags: []string{"v2"}}}},
//	})
//	...
//	err = consul.Run(ctx, balancer) // until ctx ends
//
// The promise of this package is that an error is never an empty set. Whatever goes wrong between here and Consul, services keep
// the endpoints they had; an empty set is passed on only when a Consul server said, in so many words, that there is no instance.
//
// It keeps that promise in four ways. Sets are saved, so that a restart can serve them before Consul answers (ConsulOptions.StateDir).
// A set that is empty or sharply smaller is confirmed by Consul's leader, and what vanished is held back for a while ([Guard]). A service
// can have several sources in order of preference ([Watch]). And thousands of watches share the few connections that an agent allows
// (ConsulOptions.MaxWatches). [Consul.Explain] tells what is known of a service, and why.
//
// With the sets it tells who has left for good, and why, as certainly as each service wants that to be ([Leaves]).
//
// What it knows of the health of instances is Consul's word; that an instance does not answer from here is for the balancer to find out.
package discovery

import (
	"context"

	"github.com/lictor-proxy/lictor/lb"
)

// A Sink is what sources feed. *lb.RoundRobin is one.
type Sink interface {
	// OnUpdate replaces the sets of the services named in updates, and of no others. It may be called by several goroutines at
	// once, but never for one service by two. It must not block for long, and must not keep or change updates.
	OnUpdate(updates []lb.Endpoints)
}

// A Source is a place that endpoints come from.
type Source interface {
	// Run sends the full set of each service to sink as soon as it is known, then again whenever it changed. It ends only when ctx
	// ends, having waited for its goroutines, and then returns nil; any other error means that it did not start. A Source runs once.
	Run(ctx context.Context, sink Sink) error
}
