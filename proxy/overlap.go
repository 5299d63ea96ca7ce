package proxy

import "net/netip"

// An overlapIndex finds out in constant time whether a listener overlaps with any listener of a set. Two listeners on
// the same port overlap if one of them is on all addresses of the host. The kernel refuses the second bind then. [::]
// is dual-stack, so it covers IPv4 too.
type overlapIndex map[protocolPort]*portUse

type protocolPort struct {
	protocol Protocol
	port     uint16
}

// A portUse describes the listeners of a set on one port.
type portUse struct {
	all, v4    int
	any4, any6 bool // whether 0.0.0.0 and [::] are in the set
}

// overlapsOf returns the index of the keys of sockets.
func overlapsOf[V any](sockets map[socketKey]V) overlapIndex {
	index := overlapIndex{}
	for key := range sockets {
		at := protocolPort{key.protocol, key.addr.AddrPort.Port()}
		use := index[at]
		if use == nil {
			use = &portUse{}
			index[at] = use
		}
		addr := key.addr.AddrPort.Addr()
		use.all++
		if addr.Is4() {
			use.v4++
		}
		use.any4 = use.any4 || addr == netip.IPv4Unspecified()
		use.any6 = use.any6 || addr == netip.IPv6Unspecified()
	}
	return index
}

// overlaps reports whether key overlaps with a listener of the set other than itself.
func (index overlapIndex) overlaps(key socketKey) bool {
	use := index[protocolPort{key.protocol, key.addr.AddrPort.Port()}]
	if use == nil || key.addr.AddrPort.Port() == 0 {
		return false
	}
	switch addr := key.addr.AddrPort.Addr(); {
	case addr == netip.IPv6Unspecified():
		return use.all > 1 || !use.any6
	case use.any6:
		return true
	case addr == netip.IPv4Unspecified():
		return use.v4 > 1 || use.v4 == 1 && !use.any4
	case use.any4:
		return addr.Is4()
	}
	return false
}
