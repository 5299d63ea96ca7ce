package lb

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/deadline"
)

// silentPort returns an address at which the kernel does not answer a connect, because the accept queue is full.
func silentPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	for {
		c, err := net.DialTimeout("tcp", at.String(), 500*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// A dial without an answer in time counts against the endpoint, no matter which timeout ended the dial.
func TestDialWithoutAnAnswerIsNoFaultOfThisHost(t *testing.T) {
	e := Endpoint{Addr: silentPort(t)}
	r := NewResolver(1)
	defer r.Close()
	ctx, cancel := deadline.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for name, dial := range map[string]func() (net.Conn, error){
		"the context": func() (net.Conn, error) { return r.Dial(ctx, &net.Dialer{}, TCP, e, 0, nil) },
		"the timeout": func() (net.Conn, error) {
			return r.Dial(t.Context(), &net.Dialer{}, TCP, e, 100*time.Millisecond, nil)
		},
	} {
		_, err := dial()
		if cause, local := CauseOf(err); cause != Unreachable || local {
			t.Errorf("by %s: got %v, %v of %v", name, cause, local, err)
		}
	}
}
