package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// udpServer answers each datagram with the result of handle, until the test ends. If handle returns nil, there is no
// answer.
func udpServer(t *testing.T, handle func(b []byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	serveUDP(t, c, handle)
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func serveUDP(t *testing.T, c *net.UDPConn, handle func(b []byte) []byte) {
	serveUDPAll(t, c, func(b []byte) [][]byte {
		if answer := handle(b); answer != nil {
			return [][]byte{answer}
		}
		return nil
	})
}

// serveUDPAll is serveUDP with any number of answers.
func serveUDPAll(t *testing.T, c *net.UDPConn, handle func(b []byte) [][]byte) {
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			request := buf[:n]
			if proxyHeaders {
				_, header, err := proxyproto.ParseDatagram(request)
				if err != nil {
					continue
				}
				request = request[header:]
			}
			for _, answer := range handle(request) {
				c.WriteToUDPAddrPort(answer, from)
			}
		}
	})
	t.Cleanup(func() { c.Close(); wg.Wait() })
}

func echoUDP(b []byte) []byte { return b }

// says answers each datagram with its name and the datagram.
func says(name string) func([]byte) []byte {
	return func(b []byte) []byte { return fmt.Appendf(nil, "%s:%s", name, b) }
}

func dialUDP(t *testing.T, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// query sends a datagram and returns the answer. query repeats the datagram if there is no answer for a while, because
// UDP may lose datagrams.
func query(t *testing.T, c *net.UDPConn, text string) string {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for patience := 20 * time.Millisecond; patience < 10*time.Second; patience *= 2 {
		c.Write([]byte(text))
		c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || isRefused(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	t.Fatalf("no answer to %q", text)
	return ""
}

func isRefused(err error) bool { return err != nil && isRefusal(err) }

func TestUDPEachClientHasASession(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, says("a")), udpServer(t, says("b")))
		one, two := dialUDP(t, addr), dialUDP(t, addr)
		first, second := query(t, one, "x"), query(t, two, "x")
		if first == second {
			t.Errorf("both clients got %q, want an endpoint each", first)
		}
		for range 10 {
			if got := query(t, one, "x"); got != first {
				t.Errorf("the first client got %q, want %q again", got, first)
			}
			if got := query(t, two, "x"); got != second {
				t.Errorf("the second client got %q, want %q again", got, second)
			}
		}
		if s := h.stats(); s.Sessions != 2 || s.SessionsActive != 2 && past == nil {
			t.Errorf("got %d sessions, %d active, want 2", s.Sessions, s.SessionsActive)
		}
	})
}

func TestUDPDatagramsArriveWhole(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
		for _, size := range []int{0, 1, 1400, 1472, 1473, 4096, 4097, 9000, 65506, 65507} {
			sent := strings.Repeat("0123456789abcdefg", size/17+1)[:size]
			// Each size has its own client, so a late answer of one size is not mistaken for another.
			if got := query(t, dialUDP(t, addr), sent); got != sent {
				t.Errorf("%d bytes: got %d bytes, or others", size, len(got))
			}
		}
	})
}

func TestUDPSessionExpires(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, IdleTimeout: 150 * time.Millisecond}, udpServer(t, echoUDP))
		before := settledDescriptors()
		for range 10 {
			query(t, dialUDP(t, addr), "x")
		}
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		eventually(t, noMoreDescriptors(before+10)) // the descriptors of the clients
	})
}

// Answers keep a session alive even if the client only receives.
func TestUDPAnswersKeepTheSession(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		c := dialUDP(t, h.serve(Service{Protocol: UDP, IdleTimeout: trickleLimit},
			server.LocalAddr().(*net.UDPAddr).AddrPort()))
		c.Write([]byte("subscribe"))
		buf := make([]byte, 100)
		_, session, err := server.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		trickle(func() {
			server.WriteToUDPAddrPort([]byte("tick"), session)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		})
		if s := h.stats(); s.Sessions != 1 {
			t.Errorf("got %d sessions, want 1", s.Sessions)
		}
	})
}

func TestUDPSessionsAreBoundedOldestIdleFirst(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, MaxSessions: 3, IdleTimeout: 8 * time.Second}, udpServer(t, echoUDP))
		var clients []*net.UDPConn
		for i := range 5 {
			clients = append(clients, dialUDP(t, addr))
			askOnce(t, clients[i], "x")
		}
		// A session that ends in another loop may end after the new client has its answer.
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 3))
		if n := h.stats().SessionsEvicted; n != 2 {
			t.Errorf("%d sessions were evicted, want 2", n)
		}
		askOnce(t, clients[4], "x") // still has its session
		askOnce(t, clients[2], "x")
		if n := h.stats().Sessions; n != 5 {
			t.Errorf("got %d sessions begun, want 5: the newest three kept theirs", n)
		}
		askOnce(t, clients[0], "x") // has lost its session, and gets another
		if n := h.stats().Sessions; n != 6 {
			t.Errorf("got %d sessions begun, want 6", n)
		}
	})
}

// A flood of new clients ends sessions of the flood, and not a session that is in use.
func TestUDPActiveSessionSurvivesAFlood(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, MaxSessions: 20}, udpServer(t, says("a")), udpServer(t, says("b")))
		busy := dialUDP(t, addr)
		want := query(t, busy, "x")
		for range 300 {
			query(t, dialUDP(t, addr), "flood")
			if got := query(t, busy, "x"); got != want {
				t.Fatalf("got %q, want %q: a session in use was ended", got, want)
			}
		}
		if n := h.stats().Sessions; n > 310 {
			t.Errorf("got %d sessions for 301 clients", n)
		}
	})
}

func TestUDPSessionsMakeRoomWhenDescriptorsAreShort(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.options.MaxDescriptors = 40
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
		for range 100 {
			query(t, dialUDP(t, addr), "x")
		}
		ceiling := h.budget.ceiling.Load()
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, ceiling))
		if s := h.stats(); s.Sessions != 100 || s.DatagramsDropped != 0 {
			t.Errorf("got %d sessions and %d datagrams dropped, want 100 and 0", s.Sessions, s.DatagramsDropped)
		}
	})
}

// After an ICMP refusal of the endpoint, the client's next datagram goes to another endpoint.
func TestUDPRefusedSessionIsRepicked(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, deadUDP(t), udpServer(t, says("alive")), deadUDP(t))
		for range 6 {
			if got := query(t, dialUDP(t, addr), "x"); got != "alive:x" {
				t.Fatalf("got %q, want alive", got)
			}
		}
		if h.stats().DialsFailed == 0 {
			t.Error("no endpoint refused, so the test shows nothing")
		}
	})
}

// deadUDP returns an address on which no process listens.
func deadUDP(t *testing.T) netip.AddrPort { return freePort(t, UDP) }

// If the only endpoint refuses while it restarts, it serves the same client again when it is back.
func TestUDPOnlyEndpointComesBack(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		back := deadUDP(t)
		c := dialUDP(t, h.serve(Service{Protocol: UDP}, back))
		for range 5 {
			c.Write([]byte("x"))
			time.Sleep(time.Millisecond)
		}
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(back))
		if err != nil {
			t.Fatal(err)
		}
		serveUDP(t, server, says("back"))
		if got := query(t, c, "y"); got != "back:x" && got != "back:y" { // the last x may have come just in time
			t.Errorf("got %q, want back", got)
		}
	})
}

func TestUDPSessionIsRepickedWhenItsEndpointLeaves(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a, b := udpServer(t, says("a")), udpServer(t, says("b"))
		c := dialUDP(t, h.serve(Service{Protocol: UDP}, a))
		if got := askOnce(t, c, "1"); got != "a:1" {
			t.Fatalf("got %q, want a", got)
		}
		h.endpoints("s", a, b)
		for range 5 {
			if got := askOnce(t, c, "2"); got != "a:2" {
				t.Errorf("got %q after another endpoint came, want a still", got)
			}
		}
		h.endpoints("s", b)
		if got := askOnce(t, c, "3"); got != "b:3" {
			t.Errorf("got %q after a left, want b", got)
		}
		// For a session, the same instance at another address is another endpoint.
		d := udpServer(t, says("d"))
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{{ID: b.String(), Addr: d}}}})
		if got := askOnce(t, c, "4"); got != "d:4" {
			t.Errorf("got %q after b moved, want d", got)
		}
	})
}

// When an empty set gets endpoints, the same client is served.
func TestUDPServedOnceEndpointsAppear(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		c := dialUDP(t, h.serve(Service{Protocol: UDP}))
		c.Write([]byte("lost"))
		eventually(t, equals("datagrams dropped", func() int64 { return h.stats().DatagramsDropped }, 1))
		h.endpoints("s", udpServer(t, says("a")))
		if got := query(t, c, "x"); got != "a:x" {
			t.Errorf("got %q, want a", got)
		}
	})
}

// Answers come from the address that the client dialled. A connected client would not accept another address.
func TestUDPWildcardAnswersFromTheAddressThatWasUsed(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial string }{
		{"IPv4", "0.0.0.0:0", "127.0.0.1"},
		{"IPv4, another address", "0.0.0.0:0", "127.0.0.77"},
		{"dual stack, IPv4", "[::]:0", "127.0.0.77"},
		{"dual stack, IPv6", "[::]:0", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				probe, err := net.ListenPacket("udp", net.JoinHostPort(tt.dial, "0"))
				if err != nil {
					t.Skip("this host has no such address:", err)
				}
				probe.Close()
				addr := h.serve(Service{Protocol: UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort(tt.listen)}},
					udpServer(t, says("a")))
				c := dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr(tt.dial), addr.Port()))
				if got := query(t, c, "x"); got != "a:x" {
					t.Errorf("got %q, want a", got)
				}
			})
		})
	}
}

// If one client address dials two addresses of the host, it has a session for each.
func TestUDPWildcardKeepsLocalAddressesApart(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}},
			udpServer(t, echoUDP))
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, local := range []string{"127.0.0.1", "127.0.0.2"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(local), addr.Port())
			if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
				t.Skip("this host has no such address:", err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
			if err != nil || from != to {
				t.Fatalf("answer from %v, %v, want from %v", from, err, to)
			}
		}
		if n := h.stats().SessionsActive; n != 2 && past == nil {
			t.Errorf("got %d sessions, want 2", n)
		}
	})
}

// A client that never reads its answers does not delay other clients.
func TestUDPSlowSessionHoldsUpNobody(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		flood := udpServer(t, func(b []byte) []byte { return bytes.Repeat(b, 1000) })
		addr := h.serve(Service{Protocol: UDP}, flood)
		slow := dialUDP(t, addr)
		slow.SetReadBuffer(1)
		for range 2000 {
			slow.Write([]byte("0123456789"))
		}
		quick := dialUDP(t, addr)
		for range 20 {
			if got := query(t, quick, "x"); len(got) != 1000 {
				t.Fatalf("got %d bytes, want 1000", len(got))
			}
		}
	})
}

// The lookup of an endpoint's host name does not delay other traffic. What the client sends meanwhile is kept.
func TestUDPEndpointByHostName(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP})
		server := udpServer(t, says("by name"))
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
			{ID: "name", Host: "localhost", Addr: netip.AddrPortFrom(netip.Addr{}, server.Port())},
		}}})
		c := dialUDP(t, addr)
		for i := range 3 {
			c.Write(fmt.Append(nil, i))
		}
		got := map[string]bool{}
		for range 3 {
			buf := make([]byte, 100)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got[string(buf[:n])] = true
		}
		for i := range 3 {
			if !got[fmt.Sprintf("by name:%d", i)] {
				t.Errorf("got %v, want all three answers", got)
			}
		}
	})
}

func TestUDPManyClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP}, udpServer(t, says("a")), udpServer(t, says("b")))
		var wg sync.WaitGroup
		for i := range 50 {
			c := dialUDP(t, addr)
			wg.Go(func() {
				for n := range 20 {
					text := fmt.Sprintf("%d/%d", i, n)
					buf := make([]byte, 100)
					for try := 0; ; try++ {
						c.Write([]byte(text))
						c.SetReadDeadline(time.Now().Add(time.Second))
						m, err := c.Read(buf)
						if err == nil && string(buf[2:m]) == text {
							break
						}
						if try == 20 {
							t.Errorf("client %d got %q, %v, want its own %q", i, buf[:m], err, text)
							return
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

// A few datagrams at a time are not lost in either direction, and each is sent once.
func TestUDPLosesNothingThatHasRoom(t *testing.T) { forEachEngine(t, testUDPLosesNothing) }

func testUDPLosesNothing(t *testing.T, h *house) {
	addr := h.serve(Service{Protocol: UDP}, udpServer(t, echoUDP))
	for range 5 {
		c := dialUDP(t, addr)
		for burst := 1; burst <= 16; burst *= 2 {
			want := map[string]bool{}
			for i := range burst {
				text := fmt.Sprintf("%d of %d", i, burst)
				want[text] = true
				if _, err := c.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			buf := make([]byte, 100)
			for len(want) > 0 {
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				n, err := c.Read(buf)
				if err != nil || !want[string(buf[:n])] {
					t.Fatalf("got %q, %v, want one of %d answers more", buf[:n], err, len(want))
				}
				delete(want, string(buf[:n]))
			}
		}
	}
}

// A session ends when all answers to its client's datagrams have come.
func TestUDPSessionEndsWithItsResponses(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Responses: 2}, udpServerTwice(t))
		c := dialUDP(t, addr)
		want := 0
		for range 5 {
			c.Write([]byte("x"))
			for _, text := range []string{"x", "x again"} {
				if got := receive(t, c); got != text {
					t.Fatalf("got %q, want %q", got, text)
				}
			}
			want++
			eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		}
		eventually(t, equals("datagrams down", func() int64 { return h.stats().DatagramsDown }, 10))
		eventually(t, equals("datagrams up", func() int64 { return h.stats().DatagramsUp }, 5)) // counted when sent
		if n := h.stats().Sessions; n != int64(want) {
			t.Errorf("got %d sessions, want %d", n, want)
		}
	})
}

// If a client asks again before the answer has come, its session lasts until both answers have come.
func TestUDPResponsesCountForEachRequest(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		c := dialUDP(t, h.serve(Service{Protocol: UDP, Responses: 1}, server.LocalAddr().(*net.UDPAddr).AddrPort()))
		var session netip.AddrPort
		buf := make([]byte, 10)
		for i := range 2 {
			c.Write([]byte{'0' + byte(i)})
			_, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && from != session {
				t.Fatalf("the second datagram came from %v, want %v", from, session)
			}
			session = from
		}
		server.WriteToUDPAddrPort([]byte("a"), session)
		if got := receive(t, c); got != "a" {
			t.Fatalf("got %q, want a", got)
		}
		if n := h.stats().SessionsActive; n != 1 {
			t.Errorf("got %d sessions after one of two answers, want 1", n)
		}
		server.WriteToUDPAddrPort([]byte("b"), session)
		if got := receive(t, c); got != "b" {
			t.Fatalf("got %q, want b", got)
		}
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
	})
}

// With Requests 1, each datagram of a client goes to the next endpoint. The answers of all endpoints reach the client.
func TestUDPRequestsSpreadDatagrams(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Requests: 1}, udpServer(t, says("a")), udpServer(t, says("b")),
			udpServer(t, says("c")))
		c := dialUDP(t, addr)
		counts := map[string]int{}
		for i := range 30 {
			counts[askOnce(t, c, fmt.Sprint(i))[:1]]++
		}
		for _, name := range []string{"a", "b", "c"} {
			if n := counts[name]; n != 10 {
				t.Errorf("%s answered %d of 30, want 10: %v", name, n, counts)
			}
		}
		if n := h.stats().SessionsActive; n < 30 {
			t.Errorf("got %d sessions that wait for further answers, want 30", n)
		}
	})
}

// After Requests datagrams, and not before, another endpoint is picked.
func TestUDPRequestsRepickAfterN(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Protocol: UDP, Requests: 4}, udpServer(t, says("a")), udpServer(t, says("b")))
		c := dialUDP(t, addr)
		for round := range 6 {
			for range 4 {
				c.Write([]byte("x"))
			}
			names := map[string]int{}
			for range 4 {
				names[receive(t, c)]++
			}
			if len(names) != 1 {
				t.Fatalf("round %d: got %v, want all four answers from one endpoint", round, names)
			}
		}
		if n := h.stats().Sessions; n != 6 {
			t.Errorf("got %d sessions, want one for each four datagrams", n)
		}
	})
}

// As for syslog, each datagram goes to the next endpoint, and no answers come back.
func TestUDPOneWay(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const endpoints, clients, each = 4, 20, 50
		var got [endpoints]atomic.Int64
		var addrs []netip.AddrPort
		for i := range endpoints {
			addrs = append(addrs, udpServer(t, func(b []byte) []byte { got[i].Add(1); return b }))
		}
		addr := h.serve(Service{Protocol: UDP, Requests: 1, Responses: -1}, addrs...)
		var all []*net.UDPConn
		for range clients {
			all = append(all, dialUDP(t, addr))
		}
		total := func() int64 { return got[0].Load() + got[1].Load() + got[2].Load() + got[3].Load() }
		for i := range each {
			for _, c := range all {
				c.Write([]byte("<34>1 a line"))
			}
			// The queues of the kernel are limited.
			eventually(t, equals("datagrams arrived", total, int64((i+1)*clients)))
		}
		for i := range got {
			if n := got[i].Load(); n < clients*each/endpoints-5 || n > clients*each/endpoints+5 {
				t.Errorf("endpoint %d got %d of %d datagrams, want a quarter", i, n, clients*each)
			}
		}
		for _, c := range all {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if n, err := c.Read(make([]byte, 10)); err == nil {
				t.Fatalf("got an answer of %d bytes, want none", n)
			}
		}
		// Datagrams are counted when they have been sent.
		eventually(t, equals("datagrams up", func() int64 { return h.stats().DatagramsUp }, clients*each))
		if s := h.stats(); s.DatagramsDown != 0 || s.DatagramsDropped != 0 {
			t.Errorf("got %d datagrams down, %d dropped, want 0, 0", s.DatagramsDown, s.DatagramsDropped)
		}
	})
}

// A refusing endpoint is detected, even if each session has only one datagram.
func TestUDPOneWayNoticesARefusal(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var got atomic.Int64
		alive := udpServer(t, func([]byte) []byte { got.Add(1); return nil })
		c := dialUDP(t, h.serve(Service{Protocol: UDP, Responses: -1, Requests: 1}, deadUDP(t), alive))
		eventually(t, func() error {
			c.Write([]byte("x"))
			if got.Load() < 10 {
				return errPending
			}
			return nil
		})
		if h.stats().DialsFailed == 0 {
			t.Error("no endpoint refused, so the test shows nothing")
		}
	})
}

// askOnce is query without repetition, because a second datagram on its way would use the session again.
func askOnce(t *testing.T, c *net.UDPConn, text string) string {
	t.Helper()
	c.Write([]byte(text))
	return receive(t, c)
}

// receive waits for a datagram.
func receive(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	buf := make([]byte, maxDatagram)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// udpServerTwice answers each datagram twice.
func udpServerTwice(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	serveUDPAll(t, c, func(b []byte) [][]byte { return [][]byte{b, append(b[:len(b):len(b)], " again"...)} })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
