package lb

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestAddrsAreText(t *testing.T) {
	for text, want := range map[string]Addr{
		"10.0.0.7:80":          {AddrPort: netip.MustParseAddrPort("10.0.0.7:80")},
		"[fe80::1%eth0]:80":    {AddrPort: netip.MustParseAddrPort("[fe80::1%eth0]:80")},
		"unix:///run/pg.sock":  {Path: "/run/pg.sock"},
		"unix:///run/a b.sock": {Path: "/run/a b.sock"},
		"":                     {},
	} {
		got := Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:1"), Path: "/old"}
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
		if b, err := json.Marshal(want); err != nil || string(b) != `"`+text+`"` {
			t.Errorf("%q: got %s, %v", text, b, err)
		}
		if want.IsValid() != (text != "") || want.IsValid() && want.String() != text {
			t.Errorf("%q: got %q", text, want)
		}
	}
	for _, text := range []string{"unix://", "unix:/run/a", "/run/a", "10.0.0.7"} {
		if err := new(Addr).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is an address", text)
		}
	}
}

// What a dial to a Unix socket says about the endpoint is not what the same error says about another dial.
func TestCauseOfAUnixDial(t *testing.T) {
	for errno, want := range map[syscall.Errno]Cause{
		syscall.ENOENT: Refused, syscall.ECONNREFUSED: Refused, syscall.ECONNRESET: Reset,
		syscall.EAGAIN: Unreachable, syscall.EACCES: Unreachable, syscall.EPERM: Unreachable,
		syscall.ENOTDIR: Unreachable, syscall.EPROTOTYPE: Unreachable,
		syscall.EMFILE: 0, syscall.ENOBUFS: 0,
	} {
		err := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", errno)}
		if got, local := CauseOf(err); got != want || local != (want == 0) {
			t.Errorf("%v: got %v, %v, want %v", errno, got, local, want)
		}
	}
}

// unixSocket returns a Unix socket that accepts connections, and its endpoint.
func unixSocket(t *testing.T, id string) (net.Listener, Endpoint) {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, Endpoint{ID: id, Path: filepath.Join(dir, id)}
}

// A check of an endpoint at a Unix socket connects to it.
func TestProberOverAUnixSocket(t *testing.T) {
	l, e := unixSocket(t, "a")
	b := NewRoundRobin()
	p := NewProber(b)
	defer p.Close()
	if err := p.Probe(t.Context(), "s", e); err != nil {
		t.Errorf("got %v of a socket that listens", err)
	}
	_ = l.Close() // removes the file
	if cause, _ := CauseOf(p.Probe(t.Context(), "s", e)); cause != Refused {
		t.Errorf("got cause %v of a file that is missing", cause)
	}
}

// Services share the health of a Unix socket as they share that of an IP address, and nothing else.
func TestHealthOfAUnixSocketIsShared(t *testing.T) {
	a, other := Endpoint{ID: "a", Path: "/run/a"}, Endpoint{ID: "other", Path: "/run/b"}
	b := NewRoundRobin()
	for _, service := range []string{"one", "two"} {
		b.Configure(service, Options{MinAvailable: -1})
		b.OnUpdate([]Endpoints{{Service: service, Endpoints: []Endpoint{a, other}}})
	}
	m := b.Take("one", a)
	if m == nil || b.Take("one", Endpoint{ID: "a", Path: "/run/b"}) != nil {
		t.Fatal("Take did not look at the path")
	}
	m.Failed(Refused)
	m.Done()
	for _, s := range b.Snapshot() {
		if s.Endpoints[0].State != StateEjected || s.Endpoints[1].State == StateEjected {
			t.Errorf("%s: got %v and %v, want one ejected", s.Service, s.Endpoints[0].State, s.Endpoints[1].State)
		}
	}
	next := NewRoundRobin()
	next.SetEjections(b.Ejections())
	next.Configure("one", Options{MinAvailable: -1})
	next.OnUpdate([]Endpoints{{Service: "one", Endpoints: []Endpoint{a, other}}})
	if n := next.Ejected("one", []Endpoint{a, other}); n != 1 {
		t.Errorf("%d endpoints are ejected in the next process, want 1", n)
	}
}

// Dial connects to the path of an endpoint.
func TestDialToAUnixSocket(t *testing.T) {
	_, e := unixSocket(t, "a")
	r := NewResolver(1)
	defer r.Close()
	c, err := r.Dial(t.Context(), &net.Dialer{}, TCP, e, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := c.RemoteAddr().String(); got != e.Path {
		t.Errorf("connected to %q", got)
	}
}
