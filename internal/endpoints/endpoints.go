// Package endpoints stands between the sources of endpoints and the balancer.
//
//	sets := endpoints.NewSets(balancer, events, judge)
//	mux := endpoints.NewMux(sets)
//	input := mux.Start(source, names, logger)    // the source feeds the input from now on
//	mux.Commit(names, input)                     // and its sets are in force
//	...
//	view, known := sets.View("web")              // for whoever shows it
//	err := sets.Drain("web", "node-1/web")       // for an operator
//
// A [Mux] joins several sources into one: it lets one source at a time speak for each service, also while a reload
// replaces sources. [Sets] remember the endpoints of each service, and leave out those that an operator drains or a
// [Judge] forbids. [Events] are what has happened to services and endpoints.
//
// The balancer is told of the changes of one service in order: sets, drains and verdicts. Between services there is no
// order, and no waiting: while the balancer is busy with one service, updates of others go on, and so does View. The
// locks that services share are held to look something up or to judge a set, and never while the balancer is told.
package endpoints
