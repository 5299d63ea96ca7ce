package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A fixedConn is a connection from which a server reads b and then the end.
type fixedConn struct {
	net.Conn
	*bytes.Reader
}

func (c fixedConn) Read(b []byte) (int, error)       { return c.Reader.Read(b) }
func (c fixedConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c fixedConn) SetWriteDeadline(time.Time) error { return nil }

var errHeard = errors.New("the server has the ClientHello")

// oracle returns the server name that a server of package crypto/tls finds in b, and whether it finds a ClientHello.
func oracle(b []byte) (name string, found bool) {
	server := tls.Server(fixedConn{Reader: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, found = h.ServerName, true
			return nil, errHeard
		},
	})
	if err := server.Handshake(); err != nil && !errors.Is(err, errHeard) && found {
		panic(err)
	}
	return name, found
}

// Whatever a server of package crypto/tls accepts, Scan finds the same name in, with these exceptions: names that no
// host has, records of a version that no client of today writes, and a total length above MaxLength.
func FuzzScan(f *testing.F) {
	for _, s := range samples(f) {
		if len(s.b) < 2000 { // the fuzzer makes interesting inputs small, which takes long for large ones
			f.Add(s.b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Scanner
		name, done, err := s.Scan(b)
		parts(t, b, string(name), done, err)
		want, found := oracle(b)
		switch {
		case !found:
			return // the oracle also refuses what a server cannot use, such as a ClientHello without a common version
		case errors.Is(err, ErrNotTLS) && b[1] != 3, errors.Is(err, ErrTooLong), odd(want),
			recordsOfOtherVersions(b):
		case !done:
			t.Errorf("got %v for a ClientHello of %q", err, want)
		case string(name) != want:
			t.Errorf("got %q, want %q", name, want)
		}
	})
}

// odd reports whether no host has that name.
func odd(name string) bool {
	return len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// recordsOfOtherVersions reports whether a record of b has a version below SSL 3.0.
func recordsOfOtherVersions(b []byte) bool {
	for r := bytes.NewReader(b); ; {
		var header [recordHeader]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return false
		}
		if header[1] != 3 {
			return true
		}
		if _, err := r.Seek(int64(header[3])<<8|int64(header[4]), io.SeekCurrent); err != nil {
			return false
		}
	}
}

// parts checks that Scan says the same if the bytes come in parts.
func parts(t *testing.T, b []byte, name string, done bool, err error) {
	t.Helper()
	var s Scanner
	for n := range len(b) {
		if n > 300 && n%97 != 0 {
			continue
		}
		got, whole, failed := s.Scan(b[:n])
		if failed != nil || whole {
			if string(got) != name || whole != done || !same(failed, err) {
				t.Fatalf("got %q, %v, %v after %d bytes, want %q, %v, %v", got, whole, failed, n, name, done, err)
			}
			return
		}
	}
	if got, whole, failed := s.Scan(b); string(got) != name || whole != done || !same(failed, err) {
		t.Fatalf("got %q, %v, %v in parts, want %q, %v, %v", got, whole, failed, name, done, err)
	}
}

// same reports whether two errors are of one kind. What is wrong may be found earlier in fewer bytes.
func same(a, b error) bool {
	return (a == nil) == (b == nil) && errors.Is(a, ErrNotTLS) == errors.Is(b, ErrNotTLS)
}
