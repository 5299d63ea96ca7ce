package lb

import (
	"cmp"
	"net/netip"
	"strings"
)

// unixScheme stands before the path in the text of a Unix socket's address.
const unixScheme = "unix://"

// An Addr is the address of a socket: an IP address and a port, or the path of a Unix stream socket. Addrs are values:
// they may be copied and compared.
type Addr struct {
	AddrPort netip.AddrPort // zero for a Unix socket

	// Path is the absolute path of a Unix socket. An empty Path means that AddrPort is the address.
	Path string
}

// IsValid reports whether a is the address of a socket.
func (a Addr) IsValid() bool { return a.Path != "" || a.AddrPort.IsValid() }

// String returns text such as "10.0.0.7:80", "[2001:db8::7]:80" or "unix:///run/pg.sock".
func (a Addr) String() string {
	if a.Path != "" {
		return unixScheme + a.Path
	}
	return a.AddrPort.String()
}

// AppendTo appends the text of String to b.
func (a Addr) AppendTo(b []byte) []byte {
	if a.Path != "" {
		return append(append(b, unixScheme...), a.Path...)
	}
	return a.AddrPort.AppendTo(b)
}

// MarshalText implements encoding.TextMarshaler. The text is that of String; the zero Addr has an empty text.
func (a Addr) MarshalText() ([]byte, error) {
	if a.Path != "" {
		return []byte(a.String()), nil
	}
	return a.AddrPort.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler. UnmarshalText accepts the texts that MarshalText returns.
func (a *Addr) UnmarshalText(text []byte) error {
	*a = Addr{}
	if path, is := UnixPath(string(text)); is {
		a.Path = path
		return nil
	}
	return a.AddrPort.UnmarshalText(text)
}

// Compare orders addresses for people: IP addresses first, then paths.
func (a Addr) Compare(b Addr) int {
	return cmp.Or(strings.Compare(a.Path, b.Path), a.AddrPort.Compare(b.AddrPort))
}

// UnixPath returns the path in the address of a Unix socket, such as "unix:///run/pg.sock". UnixPath returns false for
// any other text.
func UnixPath(address string) (path string, is bool) {
	path, is = strings.CutPrefix(address, unixScheme)
	return path, is && path != ""
}
