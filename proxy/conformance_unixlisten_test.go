//go:build unix

package proxy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/unixsocket"
	"github.com/lictor-proxy/lictor/lb"
)

// atSocket returns a service that listens at path only.
func atSocket(path string) Service {
	access := unixsocket.Access{Mode: 0o600}
	return Service{Listen: []netip.AddrPort{}, Sockets: []SocketFile{{Path: path, Access: access}}}
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// modeOf returns the permission bits of a socket; zero if there is none.
func modeOf(path string) fs.FileMode {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Mode().Perm()
}

// A client of a Unix socket is served like others. It has no address, so filters and limits of addresses do not apply.
func TestUnixListenerServes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		path := socketPath(t)
		s := atSocket(path)
		s.Allow, s.MaxPerClient = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 1
		h.serve(s, tcpServer(t, echo))
		if got := h.Listeners()[0].Addr; got != (lb.Addr{Path: path}) || modeOf(path) != 0o600 {
			t.Errorf("listens at %v with mode %v", got, modeOf(path))
		}
		for i := range 3 { // more than MaxPerClient
			exchange(t, dialUnix(t, path), fmt.Sprint("hello", i))
		}
		c := dialUnix(t, path)
		exchange(t, c, "hello")
		all := h.all()
		if len(all) != 4 || all[0].Client.IsValid() || all[0].Listener.Path != path {
			t.Errorf("got %+v", all)
		}
		c.CloseWrite()
		if rest, err := io.ReadAll(c); len(rest) != 0 || err != nil {
			t.Errorf("got %q, %v, want a proper end", rest, err)
		}
		if r := next(); r.Client.IsValid() || r.Listener.Path != path || r.Reason != ReasonClientClosed {
			t.Errorf("got %+v", r)
		}
		h.Proxier.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
}

// Bulk data goes both ways between two Unix sockets.
func TestUnixListenerBulkBothWays(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 16 << 20
		down, up := make(chan [32]byte, 1), make(chan [32]byte, 1)
		server := unixServer(t, func(c *net.UnixConn) {
			sent, got := sendAndSum(c, size, 1)
			down <- sent
			up <- got
		})
		path := socketPath(t)
		h.servePaths(atSocket(path), server)
		c := dialUnix(t, path)
		sent, got := sendAndSum(c, size, 2)
		if got != <-down || sent != <-up {
			t.Error("the bytes that arrived differ from those that were sent")
		}
	})
}

// Bulk data goes both ways between a Unix socket and a TCP socket.
func TestUnixListenerBulkBothWaysOverTCP(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 16 << 20
		down, up := make(chan [32]byte, 1), make(chan [32]byte, 1)
		path := socketPath(t)
		h.serve(atSocket(path), tcpServer(t, func(c testConn) {
			sent, got := sendAndSum(c, size, 1)
			down <- sent
			up <- got
		}))
		sent, got := sendAndSum(dialUnix(t, path), size, 2)
		if got != <-down || sent != <-up {
			t.Error("the bytes that arrived differ from those that were sent")
		}
	})
}

// A client at a Unix socket that sends to a TCP server which does not read waits too.
func TestUnixListenerAndServerThatDoesNotRead(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		read := make(chan bool)
		path := socketPath(t)
		h.serve(atSocket(path), tcpServer(t, func(c testConn) {
			<-read
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprint(c, n)
		}))
		h.sendAgainstStall(dialUnix(t, path), read, 16<<20)
	})
}

// A TCP server that resets a bulk transfer ends the client at the Unix socket, and leaves nothing behind.
func TestUnixListenerBulkToServerThatResets(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		path := socketPath(t)
		h.serve(atSocket(path), tcpServer(t, func(c testConn) {
			io.CopyN(io.Discard, c, 4<<20)
			abort(c)
		}))
		for range 8 {
			c := dialUnix(t, path)
			if n, err := c.Write(make([]byte, 64<<20)); err == nil {
				t.Errorf("all %d bytes were taken", n)
			}
			c.Close()
			if r := next(); r.Reason != ReasonEndpointFailed || r.Up < 4<<20 {
				t.Errorf("got %+v", r)
			}
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// A new mode applies at once, without a new socket. A removed listener takes its file away, and Apply replaces only
// sockets that nobody serves.
func TestUnixListenersThatChange(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		path, other, file := socketPath(t), closedSocket(t), socketPath(t)
		server := tcpServer(t, echo)
		h.serve(atSocket(path), server)
		c := dialUnix(t, path)
		exchange(t, c, "served") // a client that waits for accept is lost with the listener
		s := atSocket(path)
		s.Sockets[0].Mode = 0o660
		before, _ := os.Lstat(path)
		h.serve(s, server)
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || modeOf(path) != 0o660 {
			t.Errorf("got mode %v of %v, %v, want the same socket with another mode", modeOf(path), after, err)
		}
		if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		s = atSocket(other)
		s.Name, s.Sockets = "s", append(s.Sockets, SocketFile{Path: file})
		err := h.Apply([]Service{s})
		if err == nil || !strings.Contains(err.Error(), "is a regular file, not a socket") {
			t.Errorf("got %v, want that a file is in the way", err)
		}
		if text, err := os.ReadFile(file); string(text) != "precious" || err != nil {
			t.Errorf("the file has %q, %v", text, err)
		}
		if _, err := os.Lstat(other); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the other socket of a failed Apply is left behind: %v", err)
		}
		h.serve(atSocket(other), server)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the former socket is left behind: %v", err)
		}
		exchange(t, c, "still served")
		exchange(t, dialUnix(t, other), "hello")
	})
}

// PROXY headers for clients of a Unix socket say that the address is not known. A proxy may connect over a Unix socket
// whatever From says, and its headers name the clients.
func TestUnixListenerAndProxyHeaders(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		path := socketPath(t)
		s := atSocket(path)
		s.SendProxy = proxyproto.V1
		h.serve(s, tcpServer(t, echo))
		c := dialUnix(t, path)
		io.WriteString(c, "hello")
		want := "PROXY UNKNOWN\r\nhello"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		s.AcceptProxy = &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		h.serve(s, tcpServer(t, echo))
		c = dialUnix(t, path)
		header := "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
		io.WriteString(c, header+"hello")
		got = make([]byte, len(header)+5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != header+"hello" {
			t.Errorf("got %q, %v, want the same header", got, err)
		}
	})
}

// A successor takes a Unix socket over. Neither a predecessor that ends nor a successor that fails removes its file.
func TestUnixListenerIsHandedOver(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		path := socketPath(t)
		server := tcpServer(t, echo)
		h.serve(atSocket(path), server)
		open := dialUnix(t, path)
		exchange(t, open, "before")
		next := func() (*Proxier, error) {
			inherited, err := h.Sockets()
			if err != nil {
				return nil, err
			}
			balancer := lb.NewRoundRobin()
			balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{{ID: "a", Addr: server}}}})
			p, err := New(Options{LoadBalancer: balancer, Engine: h.options.Engine, Inherited: inherited, Hold: true})
			if err != nil {
				return nil, err
			}
			s := atSocket(path)
			s.Name = "s"
			err = p.Apply([]Service{s})
			p.DropInherited()
			return p, err
		}
		failing, err := next()
		if err != nil {
			t.Fatal(err)
		}
		failing.Close()
		h.Resume()
		exchange(t, dialUnix(t, path), "after a failed attempt")

		heir, err := next()
		if err != nil {
			t.Fatal(err)
		}
		defer heir.Close()
		h.Suspend()
		heir.Begin(nil)
		h.Release()
		exchange(t, dialUnix(t, path), "after")
		exchange(t, open, "still served")
		h.Proxier.Close()
		exchange(t, dialUnix(t, path), "alone")
		heir.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
}
