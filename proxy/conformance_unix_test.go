package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// socketPath returns the path of a Unix socket that does not exist yet. t.TempDir may be too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// unixServer runs handle for each connection to a new Unix socket until the test ends, and returns its path. The
// connection is closed after handle returns.
func unixServer(t *testing.T, handle func(c *net.UnixConn)) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l = PlainListener(l)
	var wg sync.WaitGroup
	var open sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, true)
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.UnixConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool {
			c.(net.Conn).Close()
			return true
		})
		wg.Wait()
	})
	return path
}

// servePaths is serve for endpoints at Unix sockets.
func (h *house) servePaths(s Service, paths ...string) netip.AddrPort {
	h.Helper()
	addr := h.serve(s)
	u := lb.Endpoints{Service: "s"}
	for _, path := range paths {
		u.Endpoints = append(u.Endpoints, lb.Endpoint{ID: path, Path: path})
	}
	h.balancer.OnUpdate([]lb.Endpoints{u})
	return addr
}

// closedSocket returns the path of a Unix socket that nobody listens on any more.
func closedSocket(t *testing.T) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

func TestUnixEndpointGetsClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		path := unixServer(t, func(c *net.UnixConn) { io.Copy(c, c) })
		c := dialTCP(t, h.servePaths(Service{}, path))
		exchange(t, c, "hello")
		shown := h.list(ConnectionQuery{Endpoint: "unix://" + path, Limit: 10}, func() {})
		if len(shown) != 1 || shown[0].Endpoint.Path != path || shown[0].From.IsValid() {
			t.Errorf("got %+v, want one connection to the socket", shown)
		}
		c.CloseWrite() // the server ends after its last answer
		if rest, err := io.ReadAll(c); len(rest) != 0 || err != nil {
			t.Errorf("got %q, %v, want a proper end", rest, err)
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		if e := h.balancer.Snapshot()[0].Endpoints[0]; e.Failures != 0 || e.Dials != 1 {
			t.Errorf("got %d failures and %d dials, want 0 and 1", e.Failures, e.Dials)
		}
	})
}

// Bulk data in both directions at once arrives as it was sent, also if a peer is slow.
func TestUnixEndpointBulkBothWays(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 16 << 20
		down, up := make(chan [32]byte, 1), make(chan [32]byte, 1)
		path := unixServer(t, func(c *net.UnixConn) {
			sent, got := sendAndSum(c, size, 1)
			down <- sent
			up <- got
		})
		c := dialTCP(t, h.servePaths(Service{}, path))
		sent, got := sendAndSum(c, size, 2)
		if got != <-down || sent != <-up {
			t.Error("the bytes that arrived differ from those that were sent")
		}
	})
}

// Bulk data to and from a Unix socket is spliced through a pipe, on systems with splice(2).
func TestUnixEndpointBulkUsesPipes(t *testing.T) {
	if maxPipes == 0 {
		t.Skip("no splice(2) here")
	}
	const size = 8 << 20
	for _, way := range []string{"up", "down"} {
		t.Run(way, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				path := unixServer(t, func(c *net.UnixConn) {
					if way == "down" {
						c.Write(make([]byte, size))
						return
					}
					io.CopyN(io.Discard, c, size)
				})
				c := dialTCP(t, h.servePaths(Service{}, path))
				used := 0
				look := func() { used = max(used, pipesOpen(h.engine)) }
				buf := make([]byte, 64<<10)
				if way == "up" {
					for n := 0; n < size; n += len(buf) {
						c.Write(buf)
						look()
					}
				}
				for err := error(nil); err == nil; look() {
					_, err = c.Read(buf)
				}
				if used == 0 || used > 4 {
					t.Errorf("%d pipes were used at once for one connection, want 1 to 4", used)
				}
			})
		})
	}
}

// A client cannot fill Lictor's memory by sending to a server that does not read: what Lictor has taken from the client
// is what the server's socket accepts.
func TestUnixEndpointThatDoesNotRead(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		read := make(chan bool)
		path := unixServer(t, func(c *net.UnixConn) {
			<-read
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprint(c, n)
		})
		h.sendAgainstStall(dialTCP(t, h.servePaths(Service{}, path)), read, 4<<20)
	})
}

// sendAgainstStall sends by c to a server that begins to read when read is closed, and then answers with the number of
// bytes. The test fails if more than most bytes leave before.
func (h *house) sendAgainstStall(c duplex, read chan<- bool, most int64) {
	h.T.Helper()
	const size = 32 << 20
	var wg sync.WaitGroup
	wg.Go(func() {
		c.Write(make([]byte, size))
		c.CloseWrite()
	})
	stalled := int64(-1)
	eventually(h.T, func() error { // two looks in a row show the same number, so nothing moves
		before := stalled
		for range 20 {
			runtime.Gosched()
		}
		if stalled = h.stats().BytesUp; stalled == 0 || stalled != before {
			return errPending
		}
		return nil
	})
	if stalled > most {
		h.T.Errorf("%d bytes went to a server that does not read", stalled)
	}
	close(read)
	wg.Wait()
	if got, err := io.ReadAll(c); string(got) != fmt.Sprint(size) || err != nil {
		h.T.Errorf("got %q, %v, want all %d bytes", got, err, size)
	}
}

// An endpoint whose socket is missing or refuses is replaced, and the failures have their causes.
func TestUnixEndpointsThatFail(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		good := unixServer(t, func(c *net.UnixConn) { io.WriteString(c, "good") })
		missing, closed := socketPath(t), closedSocket(t)
		addr := h.servePaths(Service{}, missing, closed, good)
		for range 4 {
			if got := ask(t, addr); got != "good" {
				t.Errorf("got %q", got)
			}
		}
		for _, e := range h.balancer.Snapshot()[0].Endpoints {
			if want := e.ID != good; (e.State == lb.StateEjected) != want || want && e.Cause != lb.Refused {
				t.Errorf("%s: got state %v, cause %v", e.ID, e.State, e.Cause)
			}
		}
	})
}

// A server that closes with bytes that it has not read has failed, so its client gets a reset and not a proper end.
func TestUnixEndpointThatHangsUp(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		path := unixServer(t, func(c *net.UnixConn) { io.ReadFull(c, make([]byte, 1)) })
		c := dialTCP(t, h.servePaths(Service{}, path))
		io.WriteString(c, "hello")
		_, err := io.ReadAll(c)
		wantReset(t, err)
	})
}

// A server that ends its side and closes later has ended properly: nobody is reset. Over TCP, nobody would even hear of
// the close.
func TestUnixEndpointEndsProperly(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		closes, closed := make(chan bool), make(chan bool)
		path := unixServer(t, func(c *net.UnixConn) {
			io.WriteString(c, "answer")
			c.CloseWrite()
			<-closes
			c.Close()
			closed <- true
		})
		addr := h.servePaths(Service{}, path)
		for range 20 {
			c := dialTCP(t, addr)
			if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			closes <- true
			<-closed
			h.all() // waits for a turn of each loop
			if all := h.all(); len(all) != 1 || all[0].State != ConnectionHalfClosed {
				t.Errorf("got %+v, want one half-closed connection", all)
			}
			c.Close()
			if r := next(); r.Reason != ReasonEndpointClosed || r.Err != nil {
				t.Errorf("got %+v, want that the endpoint has closed", r)
			}
		}
	})
}
