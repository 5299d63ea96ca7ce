package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// A header of version 2 begins with a fixed part: the signature, a byte with the version and the command, a byte with
// the address family and the transport protocol, and the length of all that follows (section 2.2).
const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"

	commandAt = len(signatureV2)
	familyAt  = commandAt + 1
	lengthAt  = familyAt + 1
	fixedSize = lengthAt + 2
)

// Values of the byte at commandAt.
const local, proxy = 0x20, 0x21

// Values of the byte at familyAt.
const (
	unspec       = 0x00
	tcp4, udp4   = 0x11, 0x12
	tcp6, udp6   = 0x21, 0x22
	unix, unixDg = 0x31, 0x32
)

// parseV2 parses a header of version 2. b agrees with signatureV2.
func parseV2(b []byte) (h Header, n int, err error) {
	size, err := checkFixed(b)
	if err != nil || len(b) < fixedSize {
		return Header{}, 0, err
	}
	n = fixedSize + int(binary.BigEndian.Uint16(b[lengthAt:]))
	if len(b) < n {
		return Header{}, 0, nil
	}
	b = b[:n:n]
	if b[commandAt] == proxy {
		h = parseBlock(b)
	}
	h.TLVs = TLVs(b[fixedSize+size:])
	at, err := h.TLVs.check()
	switch {
	case err == nil && at >= 0: // also for LOCAL, because one wrong bit makes LOCAL from PROXY
		err = verify(b, fixedSize+size+at)
	case err != nil && (b[commandAt] == local || size == 0): // a receiver ignores what is there, so it may be anything
		h.TLVs, err = nil, nil
	}
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// checkFixed checks the fixed part of a header, as far as b has it. If b has all of it, size is the size of the
// addresses after it, or zero if there are none that a receiver can know.
func checkFixed(b []byte) (size int, err error) {
	if len(b) <= commandAt {
		return 0, nil
	}
	switch b[commandAt] {
	case local, proxy:
	default:
		if b[commandAt]>>4 != 2 {
			return 0, errVersion
		}
		return 0, errCommand
	}
	if len(b) <= familyAt {
		return 0, nil
	}
	size, known := blockSize(b[familyAt])
	if b[commandAt] == proxy && !known {
		return 0, errFamily
	}
	if len(b) < fixedSize {
		return 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[lengthAt:]))
	switch {
	case fixedSize+length > MaxHeader:
		return 0, errTooLong
	case length < size && b[commandAt] == proxy:
		return 0, errTooShort
	}
	return min(size, length), nil // LOCAL need not have addresses, whatever its family is
}

// blockSize returns the size in bytes of the addresses of a family with a transport protocol. The size is zero if one
// of the two is unspecified. known is false for values that receivers must reject.
func blockSize(family byte) (size int, known bool) {
	switch family {
	case tcp4, udp4:
		return 2*4 + 2*2, true
	case tcp6, udp6:
		return 2*16 + 2*2, true
	case unix, unixDg:
		return 2 * 108, true
	}
	return 0, family == family&0x30 || family <= 0x02
}

// parseBlock returns the addresses of a header. b has all of them. Lictor keeps the real addresses for AF_UNIX, which
// section 2.2 allows.
func parseBlock(b []byte) (h Header) {
	block := b[fixedSize:]
	switch b[familyAt] {
	case tcp4, udp4:
		src, dst, ports := netip.AddrFrom4([4]byte(block)), netip.AddrFrom4([4]byte(block[4:])), block[8:]
		h = headerOf(src, dst, binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:]))
	case tcp6, udp6:
		src, dst, ports := netip.AddrFrom16([16]byte(block)), netip.AddrFrom16([16]byte(block[16:])), block[32:]
		h = headerOf(src, dst, binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:]))
	}
	h.Datagram = b[familyAt] == udp4 || b[familyAt] == udp6
	return h
}

// verify checks the checksum of the header b. The checksum is in the four bytes at b[at:], which count as zeros
// (section 2.2.3).
func verify(b []byte, at int) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:at])
	sum = crc32.Update(sum, table, make([]byte, checksumSize))
	if crc32.Update(sum, table, b[at+checksumSize:]) != binary.BigEndian.Uint32(b[at:]) {
		return errChecksum
	}
	return nil
}
