package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The tests of datagrams hold as well if each has a PROXY header.
func TestUDPConformanceWithProxyHeaders(t *testing.T) {
	proxyHeaders = true
	t.Cleanup(func() { proxyHeaders = false })
	for _, test := range []func(*testing.T){
		TestUDPEachClientHasASession, TestUDPSessionExpires, TestUDPSessionsAreBoundedOldestIdleFirst,
		TestUDPSessionsMakeRoomWhenDescriptorsAreShort, TestUDPRefusedSessionIsRepicked,
		TestUDPSessionIsRepickedWhenItsEndpointLeaves, TestUDPServedOnceEndpointsAppear,
		TestUDPWildcardAnswersFromTheAddressThatWasUsed, TestUDPEndpointByHostName, TestUDPManyClients,
		TestUDPLosesNothingThatHasRoom, TestUDPSessionEndsWithItsResponses, TestUDPRequestsSpreadDatagrams,
		TestUDPRequestsRepickAfterN,
	} {
		test(t)
	}
}

// An announced is a datagram with a PROXY header, or without one.
type announced struct {
	proxyproto.Header
	id, text string
	headless bool
}

func parseAnnounced(b []byte) (a announced) {
	h, n, err := proxyproto.ParseDatagram(b)
	a.Header, a.text, a.headless = h, string(b[n:]), err != nil
	for typ, value := range h.TLVs.All() {
		if typ == proxyproto.UniqueID {
			a.id = string(value)
		}
	}
	return a
}

// announcedServer returns the address of a server that echoes each datagram without its header, and what it gets.
func announcedServer(t *testing.T) (netip.AddrPort, <-chan announced) {
	got := make(chan announced, 1000)
	return udpServer(t, func(b []byte) []byte {
		a := parseAnnounced(bytes.Clone(b))
		got <- a
		return []byte(a.text)
	}), got
}

func udpAddr(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// bring sends a datagram and waits until it has arrived.
func bring(t *testing.T, c *net.UDPConn, text string, got <-chan announced) announced {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	a := testproc.Receive(t, "the datagram", got)
	if a.text != text {
		t.Fatalf("got %q, want %q", a.text, text)
	}
	return a
}

// Datagrams reach an endpoint with the client's address and an ID of the session in front, and only the client's bytes
// count.
func TestUDPSendProxy(t *testing.T) {
	for _, first := range []bool{false, true} {
		for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
			t.Run(fmt.Sprint("first ", first, " on ", at), func(t *testing.T) {
				forEachEngine(t, func(t *testing.T, h *house) {
					told := records(h)
					server, got := announcedServer(t)
					addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first,
						Listen: listen(netip.MustParseAddrPort(at))}, server)
					addr = netip.AddrPortFrom(loopback.Addr(), addr.Port())
					ids := map[string]bool{}
					for range 2 {
						c := dialUDP(t, addr)
						id := ""
						for i := range 3 {
							a := bring(t, c, "request", got)
							if first && i > 0 {
								if !a.headless {
									t.Errorf("datagram %d has a header", i)
								}
								continue
							}
							if a.headless || a.Src != udpAddr(c) || a.Dst != addr || !a.Datagram {
								t.Fatalf("got %+v, want %s to %s", a, udpAddr(c), addr)
							}
							if len(a.id) != 32 || i > 0 && a.id != id {
								t.Errorf("the ID is %q, was %q", a.id, id)
							}
							id = a.id
							if answer := query(t, c, "request"); answer != "request" {
								t.Fatalf("got %q", answer)
							}
							<-got
						}
						ids[id] = true
					}
					if len(ids) != 2 {
						t.Errorf("two sessions have %d IDs", len(ids))
					}
					h.Close()
					if r := <-told; r.Up != int64(len("request"))*r.DatagramsUp || r.DatagramsUp < 4 {
						t.Errorf("got %+v, want only the client's bytes", r)
					}
				})
			})
		}
	}
}

// A datagram that is too long with its header is dropped and counted. The next one passes.
func TestUDPSendProxyTooLong(t *testing.T) {
	for _, first := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first}, server)
			c := dialUDP(t, addr)
			const header = 16 + 12 + 3 + 32
			c.Write(make([]byte, maxPayload-header+1))
			eventually(t, equals("dropped", func() int64 { return h.stats().DatagramsDropped }, 1))
			if a := bring(t, c, strings.Repeat("x", maxPayload-header), got); a.headless {
				t.Error("the first datagram that passes has no header")
			}
			eventually(t, equals("datagrams", func() int64 { return h.stats().DatagramsUp }, 1))
			if n := h.stats().BytesUp; n != maxPayload-header {
				t.Errorf("%d bytes, want %d", n, maxPayload-header)
			}
		})
	}
}

// When an endpoint refuses, the next one gets the datagram with a header of its own session.
func TestUDPSendProxyAgainToTheNextEndpoint(t *testing.T) {
	for _, first := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first}, server, deadPort(t))
			ids := map[string]bool{}
			for i := range 6 {
				c := dialUDP(t, addr)
				query(t, c, "request")
				a := <-got
				if a.headless || a.text != "request" || a.Src != udpAddr(c) || ids[a.id] {
					t.Errorf("client %d: got %+v, want the header of a new session", i, a)
				}
				ids[a.id] = true
			}
		})
	}
}

// One-way sessions share a socket, so each datagram has its client's header.
func TestUDPSendProxyOfOneWaySessions(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, got := announcedServer(t)
		addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: true, Responses: -1}, server)
		one, two := dialUDP(t, addr), dialUDP(t, addr)
		for range 2 {
			for _, c := range []*net.UDPConn{one, two} {
				if a := bring(t, c, "message", got); a.headless || a.Src != udpAddr(c) {
					t.Errorf("got %+v, want the header of %s", a, udpAddr(c))
				}
			}
		}
	})
}

// A reload that changes send_proxy is true of the next datagram of each session.
func TestUDPReloadChangesSendProxy(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, got := announcedServer(t)
		s := Service{Protocol: UDP}
		addr := h.serve(s, server)
		c := dialUDP(t, addr)
		for range 2 {
			// One session has had a single datagram before the reload, and the other one several.
			for n := range 2 {
				for range n + 1 {
					if a := bring(t, c, "bare", got); !a.headless {
						t.Fatalf("got %+v, want no header", a)
					}
				}
				s.SendProxy = proxyproto.V2
				h.serve(s, server)
				for range n + 1 {
					if a := bring(t, c, "with a header", got); a.headless || a.Src != udpAddr(c) {
						t.Fatalf("got %+v, want a header", a)
					}
				}
				s.SendProxy = proxyproto.None
				h.serve(s, server)
			}
		}
	})
}

// A burst of a client reaches the endpoint in order, and each datagram with its header, or only the first.
func TestUDPSendProxyInBursts(t *testing.T) {
	for _, first := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first}, server)
			c := dialUDP(t, addr)
			const burst = 40
			for round := range 5 {
				for i := range burst {
					c.Write(fmt.Appendf(nil, "datagram %d %s", i, strings.Repeat("x", i%3)))
				}
				for i := range burst {
					a := testproc.Receive(t, "a datagram", got)
					want := fmt.Sprintf("datagram %d %s", i, strings.Repeat("x", i%3))
					if a.text != want || a.headless != (first && round+i > 0) {
						t.Fatalf("got %+v, want %q", a, want)
					}
				}
			}
			eventually(t, equals("datagrams", func() int64 { return h.stats().DatagramsUp }, 5*burst))
		})
	}
}

// A session that another process takes over keeps its header, or that it has sent it.
func TestHandedSessionKeepsItsHeader(t *testing.T) {
	for _, first := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			services := []Service{{Name: "s", Protocol: UDP, Listen: listen(loopback), SendProxy: proxyproto.V2,
				SendProxyFirst: first}}
			h.start()
			h.endpoints("s", server)
			if err := h.Apply(services); err != nil {
				t.Fatal(err)
			}
			c := dialUDP(t, h.Listeners()[0].Addr)
			before := bring(t, c, "before", got)
			next := succeed(t, h.Proxier, h.options, services)
			defer next.Close()
			if after := bring(t, c, "after", got); first != after.headless || !first && after.id != before.id {
				t.Errorf("got %+v after %+v", after, before)
			}
			services[0].SendProxy = proxyproto.None // as if the configuration had changed too
			last := succeed(t, next, h.options, services)
			defer last.Close()
			if a := bring(t, c, "last", got); !a.headless {
				t.Errorf("got %+v, want no header", a)
			}
		})
	}
}

// A header takes no memory for each datagram.
func TestUDPSendProxyAllocatesNothing(t *testing.T) {
	u, key := benchUDP(t)
	s := *u.service.Load().spec.Load()
	s.SendProxy = proxyproto.V2
	u.service.Load().respec(&s)
	b := make([]byte, 64)
	u.forward(key, b, nil)
	u.forward(key, b, nil)
	if n := testing.AllocsPerRun(1000, func() { u.forward(key, b, nil) }); n != 0 {
		t.Errorf("a datagram on a live session allocates %v times, want 0", n)
	}
}
