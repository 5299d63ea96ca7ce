// Package kernel is the kernel path: eBPF programs that send local clients straight to the endpoints of services.
//
// The programs run when a process of this host calls connect(2), or sendto(2) with a UDP socket. If the address is that
// of a service's listener, they replace it by the address of the endpoint whose turn it is. After that no byte of the
// connection passes Lictor.
//
//	path, err := kernel.Open(kernel.Options{Events: func(e kernel.Event) { ... }})
//	err = path.Set(kernel.Service{Name: "web", Listen: listen, Endpoints: endpoints})
//	...
//	path.Close()
//
// The listener in user space must stay open. It serves all clients that the programs leave alone:
//
//   - clients on other hosts, in other network namespaces, and outside of Options.Cgroup;
//   - Lictor itself;
//   - sockets that could not connect to the chosen endpoint: IPv4 sockets if it has an IPv6 address, sockets bound to
//     a loopback address if it is not on this host, sockets bound to an interface, and IPv6 sockets with IPV6_V6ONLY
//     if it has an IPv4 address. Without CAP_PERFMON the programs cannot see IPV6_V6ONLY, and leave all IPv6 sockets
//     alone that would need an IPv4 endpoint;
//   - all clients of a service without endpoints.
//
// The programs take turns over the endpoints exactly in proportion to the weights. There is no random_two, because it
// compares connections that only the proxy knows, and no source_hash, because all these clients have one source. There
// is no retry either: a client whose endpoint refuses sees the refusal.
//
// getpeername(2) returns the address to which the client wanted to connect, but for an MPTCP socket it returns that of
// the endpoint. Programs that look into the tables of the kernel, such as ss(8), see the endpoint.
//
// Connections to an endpoint that has left go on until Path.Cut destroys them.
//
// A UDP socket that is not connected keeps its endpoint until that leaves, or the socket has been idle. It gets its
// replies from the address to which it has sent. What it sends to an IPv6 address goes only to IPv6 endpoints.
//
// The programs end with the process, because nothing is pinned. Established connections go on.
package kernel
