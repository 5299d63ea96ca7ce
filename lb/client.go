package lb

import "net/netip"

// ClientOf returns the address under which limits and shares count the client at addr. For IPv4, ClientOf returns addr
// itself. For IPv6, it returns the /64 prefix of addr, because a host can usually take any address of its /64.
// Loopback, link-local and unique local addresses (RFC 4193) count one by one, because many hosts may share such a /64.
func ClientOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsPrivate() {
		return addr
	}
	prefix, _ := addr.Prefix(64) // Prefix fails only for the zero Addr, and then returns a zero prefix
	return prefix.Addr()
}
