package proxyproto

import "net/netip"

// A Version is a version of the protocol that a sender uses.
type Version int

// The versions.
const (
	None Version = iota // no header is sent
	V1
	V2
)

// AppendProbe appends to b the header of a health check, which relays for no client, and returns the result. With V2
// the header says LOCAL. V1 has no such command, so the header has the addresses of the check's own connection (section
// 2.1): local is the address of the sender, and remote that of the receiver. With None nothing is appended.
func (v Version) AppendProbe(b []byte, local, remote netip.AddrPort) []byte {
	switch v {
	case V1:
		return AppendV1(b, local, remote)
	case V2:
		return AppendV2(b, Header{})
	}
	return b
}
