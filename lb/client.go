package lb

import "net/netip"

// ClientOf returns the address that stands for the client at addr where clients have shares and limits: the address
// itself, but for IPv6 its /64, for whoever has one address there can take any other. Where many hosts share a /64, on
// one link or within a site, it is the address itself: loopback, link-local and unique local addresses (RFC 4193).
func ClientOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsPrivate() {
		return addr
	}
	prefix, _ := addr.Prefix(64) // it fails only for an address that is none, and is zero then
	return prefix.Addr()
}
