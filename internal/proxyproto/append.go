package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// AppendV1 appends a header of version 1 to b and returns the result. The header has at most 104 bytes. src is the
// client, and dst the address that it dialled, both of TCP. If only one of them is IPv4, the header is TCP6, as in
// HAProxy, and the IPv4 address has the form ::ffff:c000:201.
//
// If src or dst is not valid, the header is "PROXY UNKNOWN", which some receivers refuse. A health check should
// therefore send the addresses of its own connection (section 2.1).
func AppendV1(b []byte, src, dst netip.AddrPort) []byte {
	b = append(b, signatureV1...)
	from, to, ok := (&Header{Src: src, Dst: dst}).addresses()
	switch {
	case !ok:
		return append(b, "UNKNOWN\r\n"...)
	case from.Is4() && to.Is4():
		b = append(b, "TCP4 "...)
		b = append(from.AppendTo(b), ' ')
		b = append(to.AppendTo(b), ' ')
	default:
		b = append(b, "TCP6 "...)
		b = append(append6(b, from), ' ')
		b = append(append6(b, to), ' ')
	}
	b = strconv.AppendUint(b, uint64(src.Port()), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(dst.Port()), 10)
	return append(b, "\r\n"...)
}

// append6 appends addr in the form of TCP6, which has only hexadecimal digits and colons.
func append6(b []byte, addr netip.Addr) []byte {
	if addr.Is6() {
		return addr.AppendTo(b)
	}
	a := addr.As4()
	b = strconv.AppendUint(append(b, "::ffff:"...), uint64(a[0])<<8|uint64(a[1]), 16)
	return strconv.AppendUint(append(b, ':'), uint64(a[2])<<8|uint64(a[3]), 16)
}

// AppendV2 appends a header of version 2 to b and returns the result. If h.Src and h.Dst are valid, the command is
// PROXY. Otherwise the command is LOCAL. Health checks send LOCAL, and HAProxy sends it for clients without an IP
// address, too. If only one address is IPv4, the family is AF_INET6, as in HAProxy, and the IPv4 address has the form
// ::ffff:192.0.2.1.
//
// The header has the TLVs of h, in their order, with these exceptions: TLVs with which the header would be larger than
// MaxHeader, unique IDs that are longer than the protocol allows, and checksums (PP2_TYPE_CRC32C) and padding
// (PP2_TYPE_NOOP), because these are about the header that h comes from.
func AppendV2(b []byte, h Header) []byte {
	start := len(b)
	b = append(b, signatureV2...)
	inet, inet6 := byte(tcp4), byte(tcp6)
	if h.Datagram {
		inet, inet6 = udp4, udp6
	}
	src, dst, ok := h.addresses()
	switch {
	case !ok:
		b = append(b, local, unspec, 0, 0)
	case src.Is4() && dst.Is4():
		s, d := src.As4(), dst.As4()
		b = append(b, proxy, inet, 0, 0)
		b = append(append(b, s[:]...), d[:]...)
	default:
		s, d := src.As16(), dst.As16()
		b = append(b, proxy, inet6, 0, 0)
		b = append(append(b, s[:]...), d[:]...)
	}
	if ok {
		b = binary.BigEndian.AppendUint16(b, h.Src.Port())
		b = binary.BigEndian.AppendUint16(b, h.Dst.Port())
	}
	for typ, value := range h.TLVs.All() {
		if typ != checksum && typ != noop && len(b)-start+tlvSize+len(value) <= MaxHeader {
			b = TLVs(b).Append(typ, value)
		}
	}
	binary.BigEndian.PutUint16(b[start+lengthAt:], uint16(len(b)-start-fixedSize))
	return b
}

// addresses returns the addresses of h as they are written: without zones, and IPv4 in its own form. ok is false if one
// of them is not valid.
func (h *Header) addresses() (src, dst netip.Addr, ok bool) {
	src, dst = h.Src.Addr().Unmap().WithZone(""), h.Dst.Addr().Unmap().WithZone("")
	return src, dst, src.IsValid() && dst.IsValid()
}

// Append appends one TLV to t and returns the result. Append returns t itself if value is longer than MaxHeader, or if
// it is a UniqueID of more than 128 bytes.
func (t TLVs) Append(typ Type, value []byte) TLVs {
	if len(value) > MaxHeader || typ == UniqueID && len(value) > maxUniqueID {
		return t
	}
	t = binary.BigEndian.AppendUint16(append(t, byte(typ)), uint16(len(value)))
	return append(t, value...)
}

// AppendFrom appends to t those TLVs of other whose type keep accepts, and returns the result. A proxy keeps only types
// that it does not write itself. Otherwise its sender could make its receiver believe anything.
func (t TLVs) AppendFrom(other TLVs, keep func(Type) bool) TLVs {
	for typ, value := range other.All() {
		if keep(typ) {
			t = t.Append(typ, value)
		}
	}
	return t
}
