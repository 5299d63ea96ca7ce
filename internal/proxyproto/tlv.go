package proxyproto

import (
	"encoding/binary"
	"iter"
)

// TLVs are facts about a connection that a header of version 2 has after the addresses, in the form in which they are
// sent: each has a type, a length and a value (section 2.2). The zero value is empty. To make TLVs without an
// allocation, append to a buffer:
//
//	tlvs := proxyproto.TLVs(buffer[:0]).Append(proxyproto.UniqueID, id).AppendFrom(received.TLVs, keep)
type TLVs []byte

// A Type says what the value of a TLV is.
type Type byte

// UniqueID is the type of a value of up to 128 bytes that the first proxy makes up for a connection (section 2.2.5).
const UniqueID Type = 0x05

const (
	checksum Type = 0x03 // PP2_TYPE_CRC32C, section 2.2.3
	noop     Type = 0x04 // PP2_TYPE_NOOP, section 2.2.4
)

const (
	tlvSize      = 3 // size in bytes of a TLV without its value
	checksumSize = 4
	maxUniqueID  = 128
)

// All returns the type and the value of each TLV in turn. A value is a part of t. All ends before a TLV that is cut
// off, which the TLVs of Parse never have.
func (t TLVs) All() iter.Seq2[Type, []byte] {
	return func(yield func(Type, []byte) bool) {
		for rest := t; len(rest) > 0; {
			typ, value, ok := rest.first()
			if !ok || !yield(typ, value) {
				return
			}
			rest = rest[tlvSize+len(value):]
		}
	}
}

// first returns the first TLV of t. ok is false if that is cut off.
func (t TLVs) first() (typ Type, value []byte, ok bool) {
	if len(t) < tlvSize {
		return 0, nil, false
	}
	end := tlvSize + int(binary.BigEndian.Uint16(t[1:]))
	if len(t) < end {
		return 0, nil, false
	}
	return Type(t[0]), t[tlvSize:end:end], true
}

// check checks TLVs that have been received. checksumAt is the offset of the value of the checksum in t, or -1 if there
// is none.
func (t TLVs) check() (checksumAt int, err error) {
	checksumAt = -1
	for at := 0; at < len(t); {
		typ, value, ok := t[at:].first()
		switch {
		case !ok:
			return -1, errTLV
		case typ == UniqueID && len(value) > maxUniqueID:
			return -1, errUniqueID
		case typ == checksum && (len(value) != checksumSize || checksumAt >= 0):
			return -1, errChecksums
		case typ == checksum:
			checksumAt = at + tlvSize
		}
		at += tlvSize + len(value)
	}
	return checksumAt, nil
}
