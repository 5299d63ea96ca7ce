// Package consul is a client of Consul's HTTP API: of one agent or server, or of one at a time of several.
//
//	client, err := consul.New(consul.Options{Address: "127.0.0.1:8500", TokenFile: "/etc/lictor/token"})
//	...
//	go client.Run(ctx) // moves to another address, if there is one
//	answer, err := client.Query(ctx, consul.Request{Path: "/v1/health/service/web", Wait: time.Minute,
//		Index: last.Index, Site: last.Site})
//	...
//	defer answer.Free()
//
// The package knows how to reach the agent, and which errors can occur. The callers of this package interpret Consul's
// answers; package discovery turns the answers into endpoints.
//
// Lictor does not use the client of Consul's own api package, because that client
//   - fills empty options from the environment, so that the environment can override the configuration;
//   - reads a token file and certificates only once;
//   - reads answers of any length into memory;
//   - ignores the rest of an answer's headers after one that it cannot parse.
//
// This package uses the types and constants of the api package where they fit. The package does not use the types of
// instances, because decoding an api.ServiceEntry panics if the definition of a check is null.
//
// # Limits
//
// Over HTTP and Unix sockets each query needs a connection, and an agent allows 200 for each client address. The client
// does not count connections; package discovery does. Requests have only the deadline of their context.
package consul
