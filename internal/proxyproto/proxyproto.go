// Package proxyproto parses and writes headers of the PROXY protocol, versions 1 and 2. Such a header comes before the
// first byte of a connection, or at the beginning of a datagram. The header names the client for which a proxy relays.
//
// The source is proxy-protocol.txt of HAProxy, dated 2026/04/27. Sections in this package are sections of that text:
// https://github.com/haproxy/haproxy/blob/master/doc/proxy-protocol.txt
//
// The package does no input or output, and never waits. A receiver calls Parse with all bytes that have come so far:
//
//	h, n, err := proxyproto.Parse(received)
//	switch {
//	case err != nil: // reset the connection
//	case n == 0: // wait for more bytes
//	case h.Src.IsValid(): // the client is h.Src; received[n:] are its first bytes
//	default: // the client is the peer of the connection; received[n:] are its first bytes
//	}
//
// A sender appends a header to its output, and then the client's bytes:
//
//	out = proxyproto.AppendV2(out, proxyproto.Header{Src: client, Dst: listener})
//
// The package does not decide from whom a header is accepted. Section 2 forbids a receiver to guess whether there is a
// header, so the caller must know from its configuration.
package proxyproto

import "net/netip"

// MaxHeader is the largest size in bytes of a header that Parse accepts and AppendV2 writes. A header of version 2 may
// have 65,551 bytes, but should fit into one TCP segment (section 2). With 4,096 bytes, which is the limit of nginx,
// there is room for a client's certificate. No caller of Parse needs a buffer of more than MaxHeader bytes.
const MaxHeader = 4096

// A Header is what a PROXY header says. The zero Header names no client; proxies send it with their health checks.
type Header struct {
	// Src is the client, and Dst the address that it dialled. Either both are valid or none is. If none is, the
	// addresses of the connection itself apply. An IPv4 address is never in the form of an IPv6 address.
	Src, Dst netip.AddrPort

	// Datagram is true if Src and Dst are addresses of UDP, and false for TCP. That may differ from the socket: dnsdist
	// can send the header of a query that came over UDP in a TCP connection.
	Datagram bool

	// TLVs are further facts, of version 2 only. Parse returns a part of its input, so the TLVs are valid only for as
	// long as that is.
	TLVs TLVs
}

// Parse parses the header at the beginning of b. b is what has been received so far of a stream, from its first byte
// on. There are three results:
//
//   - n is positive: h is the header, and has n bytes. b may be longer.
//   - n is zero and err is nil: b is too short. Call Parse again with more bytes.
//   - err is not nil: b does not begin with a valid header, whatever comes after it. n is zero.
//
// Parse reports an error as early as possible. The first 16 bytes are enough to refuse a header that is larger than
// MaxHeader. For a valid header, Parse allocates memory only to verify a checksum (PP2_TYPE_CRC32C).
//
// In version 1, UNKNOWN has no addresses in h. In version 2, LOCAL, AF_UNSPEC and AF_UNIX have none.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case agree(b, signatureV2):
		return parseV2(b)
	case agree(b, signatureV1):
		return parseV1(b)
	}
	return Header{}, 0, errSignature
}

// ParseDatagram parses the header at the beginning of the datagram b. n is the size of the header in bytes. The
// client's own datagram is b[n:], which may be empty. ParseDatagram accepts version 2 only, because version 1 does not
// know UDP (section 2.1).
func ParseDatagram(b []byte) (h Header, n int, err error) {
	if !agree(b, signatureV2) {
		return Header{}, 0, errSignature
	}
	h, n, err = parseV2(b)
	if n == 0 && err == nil {
		err = errDatagram
	}
	return h, n, err
}

// agree reports whether b begins with s, or s with b.
func agree(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

// headerOf returns a Header for these addresses.
func headerOf(src, dst netip.Addr, srcPort, dstPort uint16) Header {
	return Header{Src: netip.AddrPortFrom(src.Unmap(), srcPort), Dst: netip.AddrPortFrom(dst.Unmap(), dstPort)}
}

// malformed is an error that says why there is no valid header.
type malformed string

func (m malformed) Error() string { return "invalid PROXY header: " + string(m) }

const (
	errSignature malformed = "the first bytes are not those of a PROXY header"
	errDatagram  malformed = "the datagram ends within the header"
	errTooLong   malformed = "the header is longer than 4096 bytes"

	errLineTooLong malformed = "the line is longer than 107 bytes"
	errLineEnd     malformed = "a carriage return or a line feed stands alone"
	errProtocol    malformed = "the protocol is none of TCP4, TCP6 and UNKNOWN"
	errAddress     malformed = "an address does not fit the protocol"
	errPort        malformed = "a port is not a number from 0 to 65535"

	errVersion   malformed = "the version is not 2"
	errCommand   malformed = "the command is none of LOCAL and PROXY"
	errFamily    malformed = "unknown address family or transport protocol"
	errTooShort  malformed = "the length leaves no room for the addresses"
	errTLV       malformed = "the last TLV does not end where the header ends"
	errUniqueID  malformed = "the unique ID is longer than 128 bytes"
	errChecksums malformed = "the checksum has not 4 bytes, or occurs twice"
	errChecksum  malformed = "wrong checksum"
)
