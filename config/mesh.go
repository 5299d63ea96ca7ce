package config

import (
	"slices"
	"strings"
)

// Mesh says how a service reaches its endpoints through Consul's service mesh.
type Mesh struct {
	As string // the identity with which endpoints are dialled: the name of a service in Consul
}

// mesh reads how a service uses Consul's service mesh.
func (b *block) mesh(s *Service) {
	if m := b.single("mesh", meshSchema()); m != nil {
		s.Mesh = &Mesh{As: m.identity()}
	}
}

// identity reads the name of the service as which Lictor speaks. It returns "" if the name was reported.
func (b *block) identity() string {
	if !b.has("as") {
		b.missing("as", "A mesh block needs as, the name of the service in Consul whose identity Lictor shows to "+
			"instances, such as as = \"web\".")
		return ""
	}
	name, ok := b.pathText("as", maxConsulName)
	if ok && !isMeshName(name) {
		b.l.problem(b.rangeOf("as"), "Bad identity", "as: an identity is the name of one service in Consul. It has "+
			"letters, digits, hyphens, underscores and dots only. Write a name such as \"web\".")
		return ""
	}
	return name
}

// isMeshName reports whether a service of that name can have an identity that fits into a URL as it is.
func isMeshName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("-_.", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// inMesh reports what a service with a mesh block cannot have beside it. It reads nothing.
func (b *block) inMesh(s *Service) {
	blocks := b.blocks.OfType("mesh")
	if len(blocks) == 0 {
		return
	}
	if s.Protocol == UDP {
		b.l.problem(blocks[0].DefRange.Ptr(), "Mesh over UDP", "Consul's service mesh speaks TLS over TCP only, and "+
			"this service is udp. Remove the mesh block, or write protocol = \"tcp\".")
		return
	}
	for _, inner := range b.blocks.OfType("endpoint_tls") {
		b.l.problem(inner.DefRange.Ptr(), "Two kinds of TLS", "With mesh, Lictor speaks the TLS of the mesh with the "+
			"instances: Consul gives the certificate and the authorities. Remove endpoint_tls, or remove mesh.")
	}
	for _, inner := range b.blocks.OfType("static") {
		b.l.problem(inner.DefRange.Ptr(), "Static endpoints in the mesh", "Consul says who an instance of the mesh "+
			"is, and static endpoints are not in Consul. Remove the static block, or remove mesh.")
	}
	if s.Transparent {
		b.l.problem(b.attrs["transparent"].NameRange.Ptr(), "Arguments that exclude each other", "transparent: the "+
			"service behind a sidecar sees the address of the sidecar, never that of the client. Remove transparent. "+
			"To pass the client's address on, use send_proxy.")
	}
	if c := s.Check; c != nil && c.HTTP != "" && c.Port == 0 {
		b.l.problem(b.blocks.OfType("check")[0].DefRange.Ptr(), "HTTP check in the mesh", "The port of a sidecar "+
			"speaks the TLS of the mesh, and a check with http does not. Remove http, so that the check connects and "+
			"shakes hands, or set port to that of an HTTP server outside of the mesh.")
	}
	b.openToOthers(s)
}

// openToOthers reports a listener that other hosts can reach if nothing says which of them may use the identity.
func (b *block) openToOthers(s *Service) {
	restricted := b.has("allow") || s.TLS != nil && s.TLS.ClientCAFile != ""
	at := slices.IndexFunc(s.Listen, Listener.reachable)
	if restricted || at < 0 || s.Mesh.As == "" {
		return
	}
	b.l.problem(b.rangeOf("listen"), "Identity open to others", "listen: other hosts can reach %s, and whoever "+
		"connects there speaks as %q in the mesh. Set allow to the addresses of the clients that may do that, or "+
		"client_ca_file in a tls block, or listen on 127.0.0.1.", s.Listen[at], s.Mesh.As)
}

// reachable reports whether other hosts may reach the listener.
func (l Listener) reachable() bool { return l.Path == "" && !l.Addr.Addr().IsLoopback() }

// queryInMesh reports what the consul block of a service with mesh cannot have. isFirst says that no other consul block
// of the service comes before.
func (b *block) queryInMesh(isFirst bool) {
	const chain = "The discovery chain in Consul says where clients go when instances fail. "
	if !isFirst {
		b.l.problem(b.head.Ptr(), "Failover in the mesh", "A service with mesh has one consul block. "+chain+
			"Remove this block, and write a service-resolver with Failover in Consul.")
	}
	for _, one := range [][2]string{
		{"datacenters", chain + "Write datacenter for one, and a service-resolver with Failover in Consul for more"},
		{"prepared_query", "The discovery chain in Consul says which instances clients get, and a prepared query " +
			"goes past it. Write service instead, and a service-resolver in Consul"},
		{"peer", "Consul's HTTP API does not give the authorities of a peer, so Lictor cannot verify instances " +
			"there. Remove peer, or remove mesh"},
		{"port", "Each way into the mesh has one port, which speaks the TLS of the mesh. Remove port, or remove mesh"},
		{"socket_paths", "The ways into the mesh have addresses. Remove socket_paths, or remove mesh"},
	} {
		if b.has(one[0]) {
			b.l.problem(b.attrs[one[0]].NameRange.Ptr(), "Not in the mesh", "%s cannot be used with mesh. %s.", one[0],
				one[1])
		}
	}
}
