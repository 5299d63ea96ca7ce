// Package endpoints connects the sources of endpoints with the balancer.
//
//	sets := endpoints.NewSets(balancer, events, judge)
//	mux := endpoints.NewMux(sets)
//	input := mux.Start(source, names, logger)    // the source feeds the input from now on
//	mux.Commit(names, input)                     // and its sets are in force
//	...
//	view, known := sets.View("web")              // to show the service
//	_, err := sets.Drain("web", "node-1/web", endpoints.Order{By: "alice", For: 10 * time.Minute})
//
// A [Mux] joins several sources into one. A Mux uses the sets of one source at a time for each service, even while a
// reload replaces sources. [Sets] keep the endpoints of each service, and leave out those that an operator has drained
// or a [Judge] forbids. [Events] record what happens to services and endpoints.
//
// The balancer receives the changes of one service in order: sets, drains and verdicts. Changes of different services
// have no order and do not wait for each other. While the balancer is busy with one service, updates of others
// continue, and so does View. Locks that services share are held only to look something up or to judge a set, and never
// during a call of the balancer.
package endpoints
