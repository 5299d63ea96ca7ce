package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func TestTCPRotates(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, named("a")), tcpServer(t, named("b")), tcpServer(t, named("c")))
		counts := map[string]int{}
		for range 30 {
			counts[ask(t, addr)]++
		}
		for _, name := range []string{"a", "b", "c"} {
			if counts[name] != 10 {
				t.Errorf("got %v, want 10 each", counts)
			}
		}
		if past != nil {
			return // the balancer learns nothing of these dials
		}
		if s := h.stats(); s.Dials.Count() != 30 || s.Dials.Sum <= 0 {
			t.Errorf("got %+v, want 30 dials and their time", s.Dials)
		}
		for _, e := range h.balancer.Snapshot()[0].Endpoints {
			if e.Dials != 10 || e.DialTime <= 0 {
				t.Errorf("%s: got %d dials in %v, want 10 and their time", e.ID, e.Dials, e.DialTime)
			}
		}
	})
}

// Bulk data in both directions at once arrives as it was sent.
func TestTCPBulkBothWays(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) { testBulkBothWays(t, h, 32<<20) })
}

func testBulkBothWays(t *testing.T, h *house, size int) {
	down := make(chan [32]byte, 1)
	up := make(chan [32]byte, 1)
	addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
		sent, got := sendAndSum(c, size, 1)
		down <- sent
		up <- got
	}))
	c := dialTCP(t, addr)
	sent, got := sendAndSum(c, size, 2)
	if got != <-down || sent != <-up {
		t.Error("the bytes that arrived differ from those that were sent")
	}
	eventually(t, func() error {
		if s := h.stats(); s.BytesUp != int64(size+saidFirst()) || s.BytesDown != int64(size) ||
			s.ConnectionsActive != 0 {
			return errors.New("counters are off")
		}
		return nil
	})
}

// sendRandom writes size random bytes in pieces of all sizes, and returns their checksum.
func sendRandom(w io.Writer, size int, seed uint64) (sum [32]byte) {
	rnd := rand.New(rand.NewPCG(seed, seed))
	hash := sha256.New()
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(rnd.Uint32())
	}
	for size > 0 {
		n := min(size, 1+rnd.IntN([]int{100, 20 << 10, 1 << 20}[rnd.IntN(3)]))
		hash.Write(buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return sum
		}
		size -= n
	}
	return [32]byte(hash.Sum(nil))
}

// A duplex is a connection whose two directions end apart.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
}

// sendAndSum sends size random bytes and ends that side of c, while it reads all that comes. It returns both checksums.
func sendAndSum(c duplex, size int, seed uint64) (sent, got [32]byte) {
	var wg sync.WaitGroup
	wg.Go(func() {
		sent = sendRandom(c, size, seed)
		_ = c.CloseWrite() // if it fails, the other side sees no end
	})
	got = sumAll(c)
	wg.Wait()
	return sent, got
}

func sumAll(r io.Reader) [32]byte {
	hash := sha256.New()
	io.Copy(hash, r)
	return [32]byte(hash.Sum(nil))
}

func TestTCPHalfCloseByClientKeepsReturnTraffic(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		answer := bytes.Repeat([]byte("answer"), 1<<18)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			if b, err := io.ReadAll(c); err != nil || string(b) != "request" {
				t.Errorf("server got %q, %v, want the request and its end", b, err)
			}
			c.Write(answer)
		}))
		c := dialTCP(t, addr)
		io.WriteString(c, "request")
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(answer))
		}
	})
}

func TestTCPHalfCloseByServerKeepsRequestTraffic(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		received := make(chan string, 1)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.WriteString(c, "greeting")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			received <- string(b)
		}))
		c := dialTCP(t, addr)
		if b, err := io.ReadAll(c); err != nil || string(b) != "greeting" {
			t.Fatalf("got %q, %v, want the greeting and its end", b, err)
		}
		io.WriteString(c, "late request")
		c.Close()
		if got := <-received; got != "late request" {
			t.Errorf("server got %q, want the late request", got)
		}
	})
}

// A half-closed connection does not live for ever. A half-closed connection ends by a reset, because it is cut short.
func TestTCPHalfCloseIsBounded(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		silent, ended := make(chan struct{}), make(chan error, 1)
		addr := h.serve(Service{HalfCloseTimeout: 100 * time.Millisecond}, tcpServer(t, func(c testConn) {
			io.ReadAll(c)
			<-silent
			_, err := c.Write([]byte("too late"))
			ended <- err
		}))
		c := dialTCP(t, addr)
		c.CloseWrite()
		_, err := io.ReadAll(c)
		wantReset(t, err)
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		close(silent)
		if err := <-ended; err == nil {
			t.Error("the server can still write, want an error")
		}
	})
}

// Bytes that move keep a half-closed connection alive.
func TestTCPHalfCloseTimeoutCountsSilenceOnly(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{HalfCloseTimeout: trickleLimit}, tcpServer(t, func(c testConn) {
			io.ReadAll(c)
			trickle(func() { io.WriteString(c, ".") })
		}))
		c := dialTCP(t, addr)
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || len(got) != 30 {
			t.Errorf("got %d bytes, %v, want 30", len(got), err)
		}
	})
}

func TestTCPResetByClientReachesServer(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		got := make(chan error, 1)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.WriteString(c, "hello")
			_, err := io.ReadAll(c)
			got <- err
		}))
		c := dialTCP(t, addr)
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
		c.Close()
		wantReset(t, <-got)
	})
}

// A server's reset reaches the client after all bytes that the server had sent before.
func TestTCPResetByServerReachesClientAfterItsBytes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 300 << 10
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			c.Write(make([]byte, size))
			io.ReadFull(c, make([]byte, 1)) // by then the proxy has taken all bytes
			c.SetLinger(0)
		}))
		c := dialTCP(t, addr)
		eventually(t, equals("bytes taken from the server", func() int64 { return h.stats().BytesDown }, size))
		io.WriteString(c, "!")
		got, err := io.ReadAll(c)
		wantReset(t, err)
		if len(got) != size {
			t.Errorf("got %d bytes before the reset, want %d", len(got), size)
		}
	})
}

// If a server answers early and closes while the client still sends, the client gets the answer and then the reset.
func TestTCPEarlyAnswerIsDelivered(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			io.ReadFull(c, make([]byte, 10))
			io.WriteString(c, "413 too large") // closes with unread bytes, which is a reset
		}))
		c := dialTCP(t, addr)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})
		got := make([]byte, 13)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "413 too large" {
			t.Errorf("got %q, %v, want the answer", got, err)
		}
		wg.Wait() // the reset or the deadline ends the sender
		if _, err := c.Write([]byte("x")); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("got %v, want the connection to have been reset", err)
		}
	})
}

func TestTCPDeadEndpointIsNotNoticedByClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, deadPort(t), tcpServer(t, named("alive")), deadPort(t))
		for range 12 {
			if got := ask(t, addr); got != "alive" {
				t.Fatalf("got %q, want alive", got)
			}
		}
		if s := h.stats(); s.DialsFailed == 0 || s.Refused != 0 {
			t.Errorf("got %d failed dials and %d refused clients, want some and none", s.DialsFailed, s.Refused)
		}
		for _, e := range h.balancer.Snapshot()[0].Endpoints {
			if (e.Dials == 0) != (e.Failures > 0) {
				t.Errorf("%s: got %d dials and %d failures, want only one of both", e.ID, e.Dials, e.Failures)
			}
		}
	})
}

func TestTCPClientIsResetWhenNobodyServes(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(t *testing.T, h *house)
	}{
		{"nothing known of the service", func(t *testing.T, h *house) {
			h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Removed: true}})
		}},
		{"no endpoints", func(t *testing.T, h *house) { h.endpoints("s") }},
		{"all endpoints dead", func(t *testing.T, h *house) { h.endpoints("s", deadPort(t), deadPort(t)) }},
		{"more dead endpoints than are tried", func(t *testing.T, h *house) {
			h.endpoints("s", deadPort(t), deadPort(t), deadPort(t), deadPort(t), deadPort(t))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				addr := h.serve(Service{})
				tt.setUp(t, h)
				c, err := dialAs(addr.String())
				if err == nil { // otherwise the reset came before Dial returned
					c.SetDeadline(time.Now().Add(30 * time.Second))
					_, err = io.ReadAll(c)
					c.Close()
				}
				wantReset(t, err)
				eventually(t, equals("clients refused", func() int64 { return h.stats().Refused }, 1))
				if n := h.stats().DialsFailed; n > maxDials {
					t.Errorf("%d endpoints were tried, want at most %d", n, maxDials)
				}
			})
		})
	}
}

// A dial that hangs delays only its own client, and only for the connect timeout.
func TestTCPAcceptNeverWaitsForADial(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		stuck := stuckPort(t)
		addr := h.serve(Service{ConnectTimeout: 20 * time.Second}, stuck)
		waiting := dialTCP(t, addr)
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 1))
		h.endpoints("s", tcpServer(t, named("quick")))
		for range 5 {
			if got := ask(t, addr); got != "quick" {
				t.Fatalf("got %q, want quick", got)
			}
		}
		if h.stats().ConnectionsActive == 0 {
			t.Error("the first client no longer waits, so the test shows nothing")
		}
		waiting.Close()
	})
}

func TestTCPDialThatHangsGoesToTheNextEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{ConnectTimeout: 100 * time.Millisecond}, stuckPort(t), tcpServer(t, named("alive")))
		for range 4 {
			if got := ask(t, addr); got != "alive" {
				t.Fatalf("got %q, want alive", got)
			}
		}
	})
}

func TestTCPIdleTimeout(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		serverEnd := make(chan error, 1)
		addr := h.serve(Service{IdleTimeout: 100 * time.Millisecond}, tcpServer(t, func(c testConn) {
			_, err := io.ReadAll(c)
			serverEnd <- err
		}))
		if _, err := io.ReadAll(dialTCP(t, addr)); err != nil {
			t.Errorf("the client's connection ended with %v, want a proper end", err)
		}
		if err := <-serverEnd; err != nil {
			t.Errorf("the server's connection ended with %v, want a proper end", err)
		}
	})
}

// Traffic in one direction keeps a connection open, even if the other direction is silent for longer than the timeout.
func TestTCPIdleTimeoutCountsBothDirections(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{IdleTimeout: trickleLimit}, tcpServer(t, func(c testConn) {
			b, _ := io.ReadAll(c)
			if len(b) != 30 {
				t.Errorf("server got %d bytes, want 30", len(b))
			}
			io.WriteString(c, "done")
		}))
		c := dialTCP(t, addr)
		trickle(func() { io.WriteString(c, ".") })
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "done" {
			t.Errorf("got %q, %v, want done", got, err)
		}
	})
}

// If the receiver does not read, the sender is stopped, and the proxy does not buffer the data. All bytes arrive in the
// end.
func TestTCPBackPressure(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 64 << 20
		release := make(chan struct{})
		sum := make(chan [32]byte, 1)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			<-release
			sum <- sumAll(c)
		}))
		c := dialTCP(t, addr)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		sent := make(chan [32]byte, 1)
		go func() {
			s := sendRandom(c, size, 3)
			c.CloseWrite()
			sent <- s
		}()
		var last int64
		eventually(t, func() error { // until no bytes move
			now := h.stats().BytesUp
			if now == 0 || now != last {
				last = now
				time.Sleep(100 * time.Millisecond)
				return errPending
			}
			return nil
		})
		runtime.ReadMemStats(&after)
		if last == size {
			t.Error("the proxy took all bytes although the receiver did not read")
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
			t.Errorf("the heap grew by %d bytes, want at most 16 MiB", grown)
		}
		close(release)
		if <-sent != <-sum {
			t.Error("the bytes that arrived differ from those that were sent")
		}
	})
}

// A peer that never reads does not hold a connection for ever.
func TestTCPIdleTimeoutEndsStuckWriters(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		hold := make(chan struct{})
		addr := h.serve(Service{IdleTimeout: 300 * time.Millisecond}, tcpServer(t, func(c testConn) {
			go func() { // also fills the way back
				for {
					if _, err := c.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}()
			<-hold
		}))
		defer close(hold)
		c := dialTCP(t, addr)
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// An idle connection holds two sockets, but no buffers and no pipes, whatever it has carried before.
func TestTCPIdlePairHoldsTwoDescriptors(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		if openDescriptors() == 0 {
			t.Skip("this system does not report open descriptors")
		}
		addr := h.serve(Service{}, tcpServer(t, echo))
		dialTCP(t, addr).Close() // opens what is opened only once
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		runtime.GC() // package net keeps its own pipes until they are collected
		runtime.GC()
		before := openDescriptors()
		const pairs = 20
		for range pairs {
			c := dialTCP(t, addr)
			var wg sync.WaitGroup
			wg.Go(func() { c.Write(make([]byte, 4<<20)) })
			if _, err := io.ReadFull(c, make([]byte, 4<<20)); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
		}
		// There are four sockets for each pair, because this process is also client and server.
		eventually(t, func() error {
			if n := openDescriptors(); n > before+4*pairs {
				return fmt.Errorf("%d idle connections opened %d descriptors, want %d", pairs, n-before, 4*pairs)
			}
			return nil
		})
	})
}

// If descriptors are short, all clients are served, some later. None is refused.
func TestTCPClientsWaitWhileDescriptorsAreShort(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.MaxDescriptors = 40
		addr := h.serve(Service{}, tcpServer(t, echo))
		var clients []testConn
		for range 60 {
			clients = append(clients, dialTCP(t, addr)) // the kernel completes these connections
		}
		eventually(t, h.waits("s"))
		most := h.budget.ceiling.Load() / pairDescriptors
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, most))
		for _, c := range clients {
			exchange(t, c, "hello")
			c.Close()
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		if s := h.stats(); s.Connections != 60 || s.Refused != 0 {
			t.Errorf("got %d connections and %d refused, want 60 and 0", s.Connections, s.Refused)
		}
	})
}

// A host name is looked up when an endpoint is dialled.
func TestTCPEndpointByHostName(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{})
		server := tcpServer(t, named("by name"))
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
			{ID: "name", Host: "localhost", Addr: netip.AddrPortFrom(netip.Addr{}, server.Port())},
		}}})
		if got := ask(t, addr); got != "by name" {
			t.Errorf("got %q, want by name", got)
		}
	})
}

func TestTCPListensOnIPv6(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		six := netip.MustParseAddrPort("[::1]:0")
		if l, err := net.Listen("tcp6", six.String()); err != nil {
			t.Skip("no IPv6 here:", err)
		} else {
			l.Close()
		}
		addr := h.serve(Service{Listen: []netip.AddrPort{six}}, tcpServer(t, named("six")))
		if got := ask(t, addr); got != "six" {
			t.Errorf("got %q, want six", got)
		}
	})
}

// The IPv4 wildcard must not accept IPv6 clients, because the operator has not asked for them.
func TestIPv4WildcardIsIPv4Only(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, p := range []Protocol{TCP, UDP} {
			addr := h.serve(Service{Protocol: p, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
			if !addr.Addr().Is4() {
				t.Errorf("%v: listens on %v, want an IPv4 address", p, addr)
			}
		}
	})
}

// Bulk data is spliced through a pipe, on systems with splice(2).
func TestTCPBulkUsesPipes(t *testing.T) {
	if maxPipes == 0 {
		t.Skip("no splice(2) here")
	}
	forEachEngine(t, testBulkUsesPipes)
}

func testBulkUsesPipes(t *testing.T, h *house) {
	addr := h.serve(Service{}, tcpServer(t, echo))
	c := dialTCP(t, addr)
	var wg sync.WaitGroup
	wg.Go(func() { c.Write(make([]byte, 8<<20)) })
	used := 0
	buf := make([]byte, 256<<10)
	for n := 0; n < 8<<20; {
		m, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += m
		used = max(used, pipesOpen(h.engine))
	}
	wg.Wait()
	if used == 0 || used > 4 {
		t.Errorf("%d pipes were used at once for one connection, want 1 to 4", used)
	}
}

func TestTCPManyClientsAtOnce(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo), tcpServer(t, echo))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 10 {
					c, err := dialAs(addr.String())
					if err != nil {
						t.Error(err)
						return
					}
					c.SetDeadline(time.Now().Add(30 * time.Second))
					msg := slices.Repeat([]byte("0123456789abcdef"), 1+rand.IntN(4000))
					go c.Write(msg)
					got := make([]byte, len(msg))
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
						t.Errorf("got %d bytes, %v, want them back as sent", len(got), err)
					}
					c.Close()
				}
			})
		}
		wg.Wait()
	})
}
