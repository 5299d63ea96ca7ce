package lb

import "net/netip"

// ClientOf returns the address by which limits and shares of a client at addr count. For IPv4 this is addr itself. For
// IPv6 it is the /64 prefix of addr, since a host can usually take any address of its /64. Loopback, link-local and
// unique local addresses (RFC 4193) count one by one: many hosts may share such a /64.
func ClientOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsPrivate() {
		return addr
	}
	prefix, _ := addr.Prefix(64) // fails only for the zero Addr; the prefix is zero then
	return prefix.Addr()
}
