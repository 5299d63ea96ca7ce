// Package clienthello finds the name of the server in a ClientHello, the first message of a TLS client. The package
// decrypts nothing, does no input or output, and keeps no bytes.
//
//	var s clienthello.Scanner
//	for {
//		b = append(b, more...) // everything that the client has sent so far
//		name, done, err := s.Scan(b)
//		...
//	}
//
// The name comes from the extension server_name (RFC 6066, section 3). With Encrypted Client Hello it is the name in
// the outer ClientHello. The name of the inner one is not visible.
package clienthello

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxLength is how many bytes the records of a ClientHello may have together. A ClientHello with many post-quantum key
// shares has a few thousand.
const MaxLength = 64 << 10

// ErrNotTLS is the error for bytes that do not begin a TLS connection. SSL 2.0 is not TLS.
var ErrNotTLS = errors.New("the first bytes are not a TLS ClientHello")

// ErrInvalid is wrapped by the errors for a ClientHello that breaks the rules of TLS.
var ErrInvalid = errors.New("invalid ClientHello")

// ErrTooLong is the error for a ClientHello that has more than MaxLength bytes.
var ErrTooLong = fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxLength)

const (
	recordHeader    = 5
	maxRecord       = 16 << 10
	handshakeRecord = 22

	messageHeader = 4
	clientHello   = 1
)

// A Scanner looks for the end of a ClientHello, which may span several records. The zero Scanner is ready for a new
// connection. All calls together take time in proportion to the number of bytes.
type Scanner struct {
	next int // where the next record begins
	got  int // bytes of the message in the records before next
	want int // bytes of the whole message; zero while its header has not come
}

// Scan returns the name of the server when b has the whole ClientHello, and done true. The name is empty if the client
// sends none. The name has no dot at the end, but may have upper-case letters. It may be a part of b.
//
// b are the bytes of the client so far. Each b must begin with the former one. Bytes behind the ClientHello are
// ignored. Scan returns an error as soon as b cannot become a ClientHello: ErrNotTLS, or an error that wraps
// ErrInvalid.
func (s *Scanner) Scan(b []byte) (name []byte, done bool, err error) {
	if err := begins(b); err != nil {
		return nil, false, err
	}
	for len(b)-s.next >= recordHeader {
		n, err := record(b[s.next:])
		if err != nil {
			return nil, false, err
		}
		end := s.next + recordHeader + n
		if end > MaxLength {
			return nil, false, ErrTooLong
		}
		if end > len(b) {
			return nil, false, nil
		}
		first := s.got == 0
		s.next, s.got = end, s.got+n
		if s.want == 0 && s.got >= messageHeader {
			if s.want = messageLength(b); s.want > MaxLength {
				return nil, false, ErrTooLong
			}
		}
		if s.want > 0 && s.got >= s.want {
			message := b[recordHeader:end]
			if !first {
				message = joined(b[:end], s.got)
			}
			name, err := serverName(message[messageHeader:s.want])
			return name, err == nil, err
		}
	}
	return nil, false, nil
}

// begins returns ErrNotTLS if b does not begin like a TLS record with a ClientHello.
func begins(b []byte) error {
	switch {
	case len(b) > 0 && b[0] != handshakeRecord, len(b) > 1 && b[1] != 3,
		len(b) >= recordHeader && !isRecordLength(b),
		len(b) > recordHeader && b[recordHeader] != clientHello:
		return ErrNotTLS
	}
	return nil
}

// record returns the length of the record that begins with b, which has at least its header.
func record(b []byte) (int, error) {
	switch {
	case b[0] != handshakeRecord || b[1] != 3:
		return 0, invalid("it has a record of another type")
	case !isRecordLength(b):
		return 0, invalid("it has a record that is empty or too long")
	}
	return int(binary.BigEndian.Uint16(b[3:])), nil
}

// isRecordLength reports whether the header of a record has a valid length.
func isRecordLength(header []byte) bool {
	n := binary.BigEndian.Uint16(header[3:])
	return 0 < n && n <= maxRecord
}

// messageLength returns how many bytes the first message of the records b has. The records have at least its header.
func messageLength(b []byte) int {
	header := joined(b, messageHeader)
	return messageHeader + int(header[1])<<16 + int(header[2])<<8 + int(header[3])
}

// joined returns the first n bytes of the contents of the records b. They have so many, and all are valid.
func joined(b []byte, n int) []byte {
	if first := int(binary.BigEndian.Uint16(b[3:])); n <= first {
		return b[recordHeader : recordHeader+n]
	}
	all := make([]byte, 0, n)
	for len(all) < n {
		end := recordHeader + int(binary.BigEndian.Uint16(b[3:]))
		content := b[recordHeader:end]
		all = append(all, content[:min(len(content), n-len(all))]...)
		b = b[end:]
	}
	return all
}
