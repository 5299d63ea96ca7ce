// Package consul is a client of one Consul agent's HTTP API.
//
//	client, err := consul.New(consul.Options{Address: "127.0.0.1:8500", TokenFile: "/etc/lictor/token"})
//	...
//	answer, err := client.Query(ctx, consul.Request{Path: "/v1/health/service/web", Index: index, Wait: time.Minute})
//	...
//	defer answer.Free()
//
// It knows how to reach the agent, and what can go wrong there. What an answer means is for its callers to say:
// package discovery turns answers into endpoints.
//
// Consul's own api package has a client too. It is not used, because it
//   - fills options that are empty from the environment, so that the environment can override the configuration;
//   - reads a token file and certificates once;
//   - reads answers of any length into memory;
//   - gives up on the headers of an answer at the first one that it cannot parse.
//
// The types and constants of that package are used where they fit. The types of instances do not: decoding an
// api.ServiceEntry panics at a check whose definition is null.
//
// # Limits
//
// Over HTTP and Unix sockets each query takes a connection, and an agent allows a client 200. The client does not
// count connections; discovery does. Requests have no deadline but that of their context.
package consul
