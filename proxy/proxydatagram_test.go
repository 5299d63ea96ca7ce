package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

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
			addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first}, server,
				deadPort(t))
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

// introduce puts a header in front of a datagram.
func introduce(client, text string) []byte {
	h := proxyproto.Header{Src: netip.MustParseAddrPort(client), Dst: realServer, Datagram: true}
	return append(proxyproto.AppendV2(nil, h), text...)
}

// answerOf reads one answer.
func answerOf(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	buf := make([]byte, maxDatagram)
	c.SetReadDeadline(time.Now().Add(testproc.Patience))
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func wantAnswer(t *testing.T, c *net.UDPConn, want string) {
	t.Helper()
	if got := answerOf(t, c); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// Each client that a proxy names has a session of its own, although all datagrams come from one address. Answers go
// back there without a header.
func TestUDPAcceptProxy(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				told := records(h)
				addr := h.serve(Service{Protocol: UDP, AcceptProxy: anyLocal,
					Listen: listen(netip.MustParseAddrPort(at))},
					udpServer(t, says("a")), udpServer(t, says("b")))
				c := dialUDP(t, netip.AddrPortFrom(loopback.Addr(), addr.Port()))
				clients := []string{"192.0.2.7:4711", "192.0.2.7:4712", "[2001:db8::7]:4711", "198.51.100.1:1"}
				endpointOf := map[string]string{}
				for range 3 {
					for _, client := range clients {
						c.Write(introduce(client, client))
						endpoint, text, _ := strings.Cut(answerOf(t, c), ":")
						if known := endpointOf[client]; text != client || known != "" && known != endpoint {
							t.Errorf("%s: got %q of %q, want it from %q", client, text, endpoint, known)
						}
						endpointOf[client] = endpoint
					}
				}
				if n := h.stats().Sessions; n != 4 {
					t.Errorf("%d sessions, want 4", n)
				}
				list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10})
				if err != nil {
					t.Fatal(err)
				}
				known, logged := map[string]bool{}, map[string]bool{}
				for _, one := range list {
					known[one.Client.String()] = true
				}
				h.Close()
				for range clients {
					r := testproc.Receive(t, "a record", told)
					logged[r.Client.String()] = true
					if want := int64(3 * len(r.Client.String())); r.Up != want {
						t.Errorf("got %+v, want %d bytes", r, want)
					}
				}
				for _, client := range clients {
					if !known[client] || !logged[client] {
						t.Errorf("%s: got %v in the list and %v in the access log", client, known, logged)
					}
				}
			})
		})
	}
}

// A header that names no client makes the proxy the client. The address that the client has used tells sessions apart.
func TestUDPAcceptProxyOfOtherHeaders(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, got := announcedServer(t)
		addr := h.serve(Service{Protocol: UDP, AcceptProxy: anyLocal, SendProxy: proxyproto.V2}, server)
		c := dialUDP(t, addr)
		c.Write(append(proxyproto.AppendV2(nil, proxyproto.Header{}), "local"...))
		if a := testproc.Receive(t, "a datagram", got); a.text != "local" || a.Src != udpAddr(c) || a.Dst != addr {
			t.Errorf("got %+v, want the proxy as the client", a)
		}
		wantAnswer(t, c, "local")
		ids := map[string]bool{}
		for _, server := range []string{"198.51.100.1:53", "198.51.100.2:53", "198.51.100.1:53"} {
			tlvs := proxyproto.TLVs(nil).Append(0xE0, []byte("kept")).Append(proxyproto.UniqueID, []byte("forged"))
			in := proxyproto.Header{Src: realClient, Dst: netip.MustParseAddrPort(server), Datagram: true, TLVs: tlvs}
			c.Write(append(proxyproto.AppendV2(nil, in), "request"...))
			a := testproc.Receive(t, "a datagram", got)
			wantAnswer(t, c, "request")
			if a.text != "request" || a.Src != realClient || a.Dst != in.Dst || !a.Datagram {
				t.Errorf("got %+v, want what the header said", a)
			}
			if len(a.id) != 32 {
				t.Errorf("got the ID %q", a.id)
			}
			kept := false
			for typ, value := range a.TLVs.All() {
				kept = kept || typ == 0xE0 && string(value) == "kept"
			}
			if !kept {
				t.Error("the TLV is lost")
			}
			ids[a.id] = true
		}
		if n := h.stats().Sessions; n != 3 || len(ids) != 2 {
			t.Errorf("%d sessions and %d IDs of 2 with a client, want 3 and 2", n, len(ids))
		}
	})
}

// A datagram without a valid header is dropped and counted, and so is one of a sender that is no proxy.
func TestUDPAcceptProxyRefuses(t *testing.T) {
	valid := introduce("192.0.2.7:4711", "")
	tooLong := bytes.Clone(valid)
	tooLong[14], tooLong[15] = 0xFF, 0xFF
	for _, tt := range []struct{ name, sends, why string }{
		{"nothing", "", "the datagram ends within the header"},
		{"no header", "\x12\x34\x01\x00\x00\x01", "the first bytes are not those of a PROXY header"},
		{"v1", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 53\r\nquery", "the first bytes are not those of a PROXY header"},
		{"half a header", string(valid[:20]), "the datagram ends within the header"},
		{"endless header", string(tooLong) + strings.Repeat("x", 60000), "longer than 4096 bytes"},
		{"no proxy", string(valid) + "query", "127.0.0.2 is not in from"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				log := &testproc.Log{}
				h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
				addr := h.serve(Service{Protocol: UDP, AcceptProxy: &AcceptProxy{From: prefixes("127.0.0.1/32")}},
					udpServer(t, echoUDP))
				bad := dialUDP(t, addr)
				if tt.name == "no proxy" {
					bad = dialFrom(t, "127.0.0.2", addr)
				}
				const flood = 20
				for range flood {
					bad.Write([]byte(tt.sends))
				}
				good := dialUDP(t, addr)
				good.Write(introduce("192.0.2.7:4711", "request"))
				wantAnswer(t, good, "request")
				eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedProxyHeader] }, flood))
				s := h.stats()
				if s.Refused != flood || s.DatagramsDropped != flood || s.Sessions != 1 {
					t.Errorf("got %+v, want %d dropped and one session", s, flood)
				}
				if n := strings.Count(log.String(), tt.why); n == 0 || n > flood/2 {
					t.Errorf("%d lines with %q, want few:\n%s", n, tt.why, log.String())
				}
			})
		})
	}
}

// The rules on clients and their limits are about the client that the header names.
func TestUDPAcceptProxyAndRulesOnClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := udpServer(t, echoUDP)
		rules := Service{Protocol: UDP, AcceptProxy: anyLocal, MaxPerClient: 1, IdleTimeout: time.Hour,
			Allow: prefixes("192.0.2.0/24")}
		addr := h.serve(rules, server)
		c := dialUDP(t, addr)
		ask := func(client string) {
			c.Write(introduce(client, client))
		}
		for range 2 {
			ask("192.0.2.1:1")
			wantAnswer(t, c, "192.0.2.1:1")
			ask("192.0.2.2:1")
			wantAnswer(t, c, "192.0.2.2:1")
			ask("192.0.2.1:2")
			ask("198.51.100.1:1")
		}
		eventually(t, func() error {
			s := h.stats()
			if s.RefusedBy[RefusedNotAllowed] != 2 || s.RefusedBy[RefusedPerClient] != 2 || s.Sessions != 2 {
				return fmt.Errorf("got %v and %d sessions", s.RefusedBy, s.Sessions)
			}
			return nil
		})
		counts := h.ClientCounts()["s"]
		if len(counts) != 2 || counts[ClientKey{Addr: netip.MustParseAddr("192.0.2.1")}] != 1 {
			t.Errorf("got %v, want two clients", counts)
		}
		rules.Allow, rules.Deny = nil, prefixes("192.0.2.1/32") // so the proxy itself may come
		h.serve(rules, server)
		ask("192.0.2.1:1")
		eventually(t, equals("sessions", func() int64 { return h.stats().SessionsActive }, 1))
		if counts := h.ClientCounts()["s"]; len(counts) != 1 {
			t.Errorf("got %v, want one client", counts)
		}
	})
}

// A burst of many clients behind one proxy: each datagram reaches the endpoint of its client, with the right header.
func TestUDPAcceptProxyInBursts(t *testing.T) {
	for _, send := range []proxyproto.Version{proxyproto.None, proxyproto.V2} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			addr := h.serve(Service{Protocol: UDP, AcceptProxy: anyLocal, SendProxy: send}, server)
			c := dialUDP(t, addr)
			const burst = 30
			for range 5 {
				for i := range burst {
					client := fmt.Sprintf("192.0.2.%d:%d", 1+i%7, 1000+i%7)
					if i%3 == 0 {
						client = fmt.Sprintf("[2001:db8::%d]:%d", 1+i%7, 1000+i%7)
					}
					c.Write(introduce(client, client))
				}
				for range burst {
					a := testproc.Receive(t, "a datagram", got)
					if send == proxyproto.None {
						if !a.headless || !strings.HasPrefix(a.text, "192.0.2.") &&
							!strings.HasPrefix(a.text, "[2001:db8::") {
							t.Fatalf("got %+v, want a client's name", a)
						}
					} else if a.headless || a.Src.String() != a.text || a.Dst != realServer {
						t.Fatalf("got %+v, want the header of %s", a, a.text)
					}
				}
			}
		})
	}
}

// When an endpoint refuses a datagram, another one gets it with what the client's header said.
func TestUDPAcceptProxyAgainToTheNextEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, got := announcedServer(t)
		addr := h.serve(Service{Protocol: UDP, AcceptProxy: anyLocal, SendProxy: proxyproto.V2}, server, deadPort(t))
		c := dialUDP(t, addr)
		for i := range 6 {
			client := fmt.Sprintf("192.0.2.7:%d", 1000+i)
			for a := (announced{}); a.text == ""; {
				c.Write(introduce(client, client))
				select {
				case a = <-got:
					if a.Src.String() != client || a.text != client || a.Dst != realServer {
						t.Errorf("got %+v, want %s", a, client)
					}
				case <-time.After(20 * time.Millisecond): // the refusal came after the datagram
				}
			}
		}
	})
}

// A reload that changes accept_proxy is true of the next datagram.
func TestUDPReloadChangesAcceptProxy(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := udpServer(t, echoUDP)
		s := Service{Protocol: UDP}
		c := dialUDP(t, h.serve(s, server))
		for range 2 {
			c.Write([]byte("bare"))
			wantAnswer(t, c, "bare")
			s.AcceptProxy = anyLocal
			h.serve(s, server)
			c.Write([]byte("dropped"))
			c.Write(introduce("192.0.2.7:4711", "introduced"))
			wantAnswer(t, c, "introduced")
			s.AcceptProxy = nil
			h.serve(s, server)
		}
		if n := h.stats().RefusedBy[RefusedProxyHeader]; n != 2 {
			t.Errorf("%d are refused, want 2", n)
		}
	})
}

// One-way sessions of clients behind a proxy share a socket, and each datagram has its client's header.
func TestUDPAcceptProxyOfOneWaySessions(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server, got := announcedServer(t)
		addr := h.serve(Service{Protocol: UDP, AcceptProxy: anyLocal, SendProxy: proxyproto.V2, Responses: -1}, server)
		c := dialUDP(t, addr)
		for i := range 6 {
			client := fmt.Sprintf("192.0.2.%d:514", i%3)
			c.Write(introduce(client, client))
			if a := testproc.Receive(t, "a datagram", got); a.Src.String() != client || a.text != client {
				t.Errorf("got %+v, want %s", a, client)
			}
		}
	})
}

// Neither a datagram with a header nor a refused one takes memory.
func TestUDPAcceptProxyAllocatesNothing(t *testing.T) {
	u, key := benchUDP(t)
	s := *u.service.Load().spec.Load()
	s.AcceptProxy, s.SendProxy = anyLocal, proxyproto.V2
	u.service.Load().respec(&s)
	valid, bad, stranger := introduce("192.0.2.7:4711", "request"), []byte("query"), key
	stranger.client = realClient
	for _, all := range []func(){
		func() { u.forward(key, valid, nil) }, func() { u.forward(key, bad, nil) },
		func() { u.forward(stranger, valid, nil) },
	} {
		all()
		all()
		if n := testing.AllocsPerRun(1000, all); n != 0 {
			t.Errorf("a datagram allocates %v times, want 0", n)
		}
	}
}
