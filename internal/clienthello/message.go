package clienthello

import (
	"encoding/binary"
	"fmt"
)

// A reader takes values from the front of a message. After a value that is cut off, failed is true, and all further
// values are empty.
type reader struct {
	rest   []byte
	failed bool
}

// take returns the next n bytes.
func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint8() int {
	if b := r.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

// vector8 and vector16 return the next bytes, whose number is in one byte or two bytes before them.
func (r *reader) vector8() []byte  { return r.take(r.uint8()) }
func (r *reader) vector16() []byte { return r.take(r.uint16()) }

func invalid(what string) error { return fmt.Errorf("%w: %s", ErrInvalid, what) }

// serverName returns the name of the server in the body of a ClientHello (RFC 8446, section 4.1.2).
func serverName(body []byte) (name []byte, err error) {
	r := reader{rest: body}
	r.take(2 + 32) // version, random
	r.vector8()    // session ID
	suites := r.vector16()
	r.vector8() // compression methods
	switch {
	case r.failed || len(suites)%2 != 0:
		return nil, invalid("it is cut off")
	case len(r.rest) == 0:
		return nil, nil // TLS 1.2 and older clients may send no extensions
	}
	extensions := reader{rest: r.vector16()}
	if r.failed || len(r.rest) > 0 {
		return nil, invalid("its extensions have another length")
	}
	seen := false
	for len(extensions.rest) > 0 {
		kind, content := extensions.uint16(), extensions.vector16()
		if extensions.failed {
			return nil, invalid("an extension is cut off")
		}
		const serverNameExtension = 0
		if kind != serverNameExtension {
			continue
		}
		if seen {
			return nil, invalid("it has two server_name extensions")
		}
		seen = true
		if name, err = hostName(content); err != nil {
			return nil, err
		}
	}
	return name, nil
}

// hostName returns the host name in the content of a server_name extension (RFC 6066, section 3), without a dot at the
// end. The result is nil if the extension has only names of other types.
func hostName(content []byte) (name []byte, err error) {
	r := reader{rest: content}
	list := reader{rest: r.vector16()}
	if r.failed || len(r.rest) > 0 || len(list.rest) == 0 {
		return nil, invalid("its list of server names has another length")
	}
	for len(list.rest) > 0 {
		kind, one := list.uint8(), list.vector16()
		const hostNameType = 0
		switch {
		case list.failed || len(one) == 0:
			return nil, invalid("a server name is cut off")
		case kind != hostNameType:
			continue
		case name != nil:
			return nil, invalid("it has two server names")
		}
		name = one
	}
	if n := len(name); n > 1 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) > maxName {
		return nil, invalid("its server name is too long")
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil, invalid("its server name has characters that no host name has")
		}
	}
	return name, nil
}

// maxName is the length of the longest host name: RFC 1035, section 2.3.4.
const maxName = 253
