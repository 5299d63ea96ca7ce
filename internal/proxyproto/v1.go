package proxyproto

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"
)

const (
	signatureV1 = "PROXY "

	// maxLine is the size of the longest line of version 1, with its CR and LF (section 2.1).
	maxLine = 107
)

// parseV1 parses a header of version 1. b agrees with signatureV1.
func parseV1(b []byte) (Header, int, error) {
	if len(b) <= len(signatureV1) {
		return Header{}, 0, nil
	}
	line := b[:min(len(b), maxLine)]
	if !mayBeProtocol(line[len(signatureV1):]) {
		return Header{}, 0, errProtocol
	}
	cr, lf := bytes.IndexByte(line, '\r'), bytes.IndexByte(line, '\n')
	switch {
	case cr >= 0 && lf == cr+1:
		h, err := parseLine(line[len(signatureV1):cr])
		if err != nil {
			return Header{}, 0, err
		}
		return h, lf + 1, nil
	case lf >= 0 || cr >= 0 && cr < len(line)-1:
		return Header{}, 0, errLineEnd
	case len(line) == maxLine:
		return Header{}, 0, errLineTooLong
	}
	return Header{}, 0, nil
}

// mayBeProtocol reports whether text is the beginning of what may come after signatureV1.
func mayBeProtocol(text []byte) bool {
	return agree(text, "TCP4 ") || agree(text, "TCP6 ") || agree(text, "UNKNOWN ") || agree(text, "UNKNOWN\r")
}

// parseLine parses the part of a line between signatureV1 and its end. UNKNOWN may be followed by anything.
func parseLine(text []byte) (Header, error) {
	protocol, text, _ := bytes.Cut(text, []byte(" "))
	if string(protocol) == "UNKNOWN" {
		return Header{}, nil
	}
	src, text, _ := bytes.Cut(text, []byte(" "))
	dst, text, _ := bytes.Cut(text, []byte(" "))
	srcPort, dstPort, _ := bytes.Cut(text, []byte(" "))

	is4 := string(protocol) == "TCP4"
	from, ok1 := parseAddr(src, is4)
	to, ok2 := parseAddr(dst, is4)
	if !ok1 || !ok2 {
		return Header{}, errAddress
	}
	fromPort, ok1 := parsePort(srcPort)
	toPort, ok2 := parsePort(dstPort)
	if !ok1 || !ok2 {
		return Header{}, errPort
	}
	return headerOf(from, to, fromPort, toPort), nil
}

// parseAddr parses an address. It accepts the form ::ffff:192.0.2.1, which section 2.1 does not have, because HAProxy
// writes it for a connection between IPv4 and IPv6.
func parseAddr(text []byte, is4 bool) (netip.Addr, bool) {
	// ParseAddr needs a string. A copy would be an allocation for each address, and neither the error nor an Addr
	// without a zone keeps the string.
	addr, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text)))
	return addr, err == nil && addr.Is4() == is4 && addr.Zone() == ""
}

// parsePort parses a port. There must be no sign and no leading zero.
func parsePort(text []byte) (uint16, bool) {
	n, err := strconv.ParseUint(string(text), 10, 16)
	return uint16(n), err == nil && (text[0] != '0' || len(text) == 1)
}
