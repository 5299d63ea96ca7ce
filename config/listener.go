package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// DefaultSocketMode lets every user of this host connect, as a listener on 127.0.0.1 does.
const DefaultSocketMode = 0o666

// A Listener is where a service takes clients: at an address, or over TCP at a Unix socket.
type Listener struct {
	Addr netip.AddrPort // port 0 lets the kernel choose; zero for a Unix socket

	Path         string // absolute path of a Unix socket; empty: Addr counts
	Mode         int    // permission bits of the socket
	Owner, Group string // name or number; empty: that of Lictor
}

// String returns the listener as it is written in the configuration: "127.0.0.1:9000", "unix:///run/app.sock" or
// "unix:///run/app.sock mode=0660 owner=app group=app".
func (l Listener) String() string {
	if l.Path == "" {
		return l.Addr.String()
	}
	text := unixScheme + l.Path
	if l.Mode != DefaultSocketMode {
		text += fmt.Sprintf(" mode=%04o", l.Mode)
	}
	if l.Owner != "" {
		text += " owner=" + l.Owner
	}
	if l.Group != "" {
		text += " group=" + l.Group
	}
	return text
}

// MarshalText returns the text of String.
func (l Listener) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText accepts the texts that MarshalText returns.
func (l *Listener) UnmarshalText(text []byte) error {
	*l = Listener{}
	if !strings.HasPrefix(string(text), unixScheme) {
		return l.Addr.UnmarshalText(text)
	}
	var problem string
	if *l, problem = parseSocket(string(text)); problem != "" {
		return errors.New(problem)
	}
	return nil
}

const socketExample = `"unix:///run/app/db.sock mode=0660 owner=app group=app"`

// parseSocket returns the Unix socket that s gives, or a problem. The path of such a socket has no spaces.
func parseSocket(s string) (l Listener, problem string) {
	words := strings.Fields(strings.TrimPrefix(s, unixScheme))
	if len(words) == 0 {
		words = []string{""}
	}
	l = Listener{Path: words[0], Mode: DefaultSocketMode}
	problem = hostport.BadSocketPath(l.Path)
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case problem != "":
		case value == "" || name != "mode" && name != "owner" && name != "group":
			problem = fmt.Sprintf("%q is not mode=, owner= or group= with a value", word)
		case name == "mode":
			l.Mode, problem = socketMode(value)
		case name == "owner":
			l.Owner = value
		default:
			l.Group = value
		}
	}
	if problem != "" {
		problem = fmt.Sprintf("%q: %s. Write something like %s", s, problem, socketExample)
	}
	return l, problem
}

// socketMode returns the mode that s gives. Connecting to a socket needs write permission.
func socketMode(s string) (int, string) {
	n, err := strconv.ParseUint(s, 8, 32)
	switch {
	case err != nil || n > 0o777:
		return 0, fmt.Sprintf("%q is not a mode of three octal digits", s)
	case n&0o222 == 0:
		return 0, fmt.Sprintf("nobody could connect with mode %s", s)
	}
	return int(n), ""
}
