package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// prefixes parses prefixes that are separated by spaces.
func prefixes(text string) (all []netip.Prefix) {
	for _, one := range strings.Fields(text) {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func TestClientFilter(t *testing.T) {
	for _, tt := range []struct{ allow, deny, may, mayNot string }{
		{"", "", "127.0.0.1 ::1 ::ffff:10.0.0.1 fe80::1%eth0", ""},
		{"10.0.0.0/8 ::1/128", "", "10.0.0.0 10.255.255.255 ::1 ::ffff:10.1.2.3", "9.255.255.255 11.0.0.0 ::2"},
		{"", "10.0.0.0/8 2001:db8::/32", "11.0.0.0 ::1", "10.0.0.1 ::ffff:10.0.0.1 2001:db8::1"},
		{"10.0.0.0/8", "10.1.0.0/16", "10.0.0.1 10.2.0.1", "10.1.0.1 ::ffff:10.1.0.1 11.0.0.1"},
		{"10.1.0.0/16", "10.0.0.0/8", "", "10.1.0.1 10.2.0.1 11.0.0.1"}, // deny wins over a narrower allow
		{"0.0.0.0/0", "", "10.0.0.1 ::ffff:10.0.0.1", "::1"},
		{"::/0", "", "::1 fe80::1%eth0", "10.0.0.1 ::ffff:10.0.0.1"},
		{"fe80::/10", "fe80::7/128", "fe80::1 fe80::1%eth0", "fe80::7%eth0 ::1"},
		{"0.0.0.0/0 ::/0", "10.0.0.7/32", "10.0.0.8 ::1", "10.0.0.7"},
	} {
		f := newClientFilter(&Service{Allow: prefixes(tt.allow), Deny: prefixes(tt.deny)})
		for want, addrs := range map[bool]string{true: tt.may, false: tt.mayNot} {
			for _, a := range strings.Fields(addrs) {
				if got := f.admits(netip.MustParseAddr(a)); got != want {
					t.Errorf("allow %q, deny %q: %s may come: %v, want %v", tt.allow, tt.deny, a, got, want)
				}
			}
		}
	}
}

// notAllowed returns how many clients, or datagrams without a session, were refused because of Allow and Deny.
func (h *house) notAllowed() int64 { return h.stats().RefusedBy[RefusedNotAllowed] }

// A client that may not come gets a reset, and no endpoint is dialled for it. A reload applies to new connections.
func TestOnlyAllowedClientsAreConnected(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		server := greeter(t)
		addr := h.serve(Service{Allow: prefixes("127.0.0.0/8"), Deny: prefixes("127.0.0.2/32")}, server)
		open, err := greetedFrom(t, "127.0.0.1", addr)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(source string, times int64) {
			t.Helper()
			_, err := greetedFrom(t, source, addr)
			wantReset(t, err)
			r := next()
			if r.Reason != ReasonNotAllowed || r.Refused != "not_allowed" || r.Endpoint.ID != "" || r.Connect != 0 ||
				r.Listener.AddrPort != addr || r.Client.Addr() != netip.MustParseAddr(source) {
				t.Errorf("got the access record %+v", r)
			}
			if n := h.notAllowed(); n != times || h.stats().Refused != times {
				t.Errorf("%d of %d refused clients may not come, want %d", n, h.stats().Refused, times)
			}
		}
		refused("127.0.0.2", 1)
		if s := h.stats(); s.Connections != 2 || s.ConnectionsActive != 1 || s.Dials.Count() != 1 {
			t.Errorf("%d connections, %d active, %d dials; want 2, 1 and 1", s.Connections, s.ConnectionsActive,
				s.Dials.Count())
		}
		if taken := h.stats().Descriptors.Taken; taken != pairDescriptors {
			t.Errorf("%d descriptors are taken, want those of one connection", taken)
		}

		h.serve(Service{Deny: prefixes("127.0.0.1/32")}, server)
		refused("127.0.0.1", 2)
		exchange(t, open, "still there")
		if _, err := greetedFrom(t, "127.0.0.2", addr); err != nil {
			t.Errorf("after a reload: %v", err)
		}
		h.serve(Service{Allow: prefixes("127.0.0.1/32")}, server)
		refused("127.0.0.2", 3)
		h.serve(Service{}, server)
		if _, err := greetedFrom(t, "127.0.0.2", addr); err != nil {
			t.Errorf("without lists: %v", err)
		}
	})
}

// filteredListeners are listeners with the address that a client has there, and a prefix without that address.
var filteredListeners = []struct{ name, listen, client, other string }{
	{"IPv4", "127.0.0.1:0", "127.0.0.1", "127.0.0.2/32"},
	{"IPv6", "[::1]:0", "::1", "::2/128"},
	{"dual stack, IPv4", "[::]:0", "127.0.0.1", "::/0"},
	{"dual stack, IPv6", "[::]:0", "::1", "0.0.0.0/0"},
}

// forEachFilter runs a test for a client that may come, and for one that may not, on each kind of listener.
func forEachFilter(t *testing.T, test func(t *testing.T, h *house, s Service, client netip.Addr, may bool)) {
	for _, tt := range filteredListeners {
		client := netip.MustParseAddr(tt.client)
		own, other := netip.PrefixFrom(client, client.BitLen()).String(), tt.other
		for _, lists := range []struct {
			name, allow, deny string
			may               bool
		}{
			{"in allow", own, "", true},
			{"in deny", "", own, false},
			{"not in allow", other, "", false},
			{"not in deny", "", other, true},
			{"in both", own + " " + other, own, false},
		} {
			t.Run(tt.name+", "+lists.name, func(t *testing.T) {
				forEachEngine(t, func(t *testing.T, h *house) {
					if probe, err := net.Listen("tcp", tt.listen); err != nil {
						t.Skip("this host has no such address:", err)
					} else {
						probe.Close()
					}
					listen := []netip.AddrPort{netip.MustParseAddrPort(tt.listen)}
					s := Service{Listen: listen, Allow: prefixes(lists.allow), Deny: prefixes(lists.deny)}
					test(t, h, s, client, lists.may)
				})
			})
		}
	}
}

func TestAllowedConnectionsOfEachFamily(t *testing.T) {
	forEachFilter(t, func(t *testing.T, h *house, s Service, client netip.Addr, may bool) {
		addr := h.serve(s, greeter(t))
		err := greeted(netip.AddrPortFrom(client, addr.Port()))
		if may && err != nil {
			t.Error(err)
		}
		if !may {
			wantReset(t, err)
		}
	})
}

func TestAllowedSessionsOfEachFamily(t *testing.T) {
	forEachFilter(t, func(t *testing.T, h *house, s Service, client netip.Addr, may bool) {
		s.Protocol = UDP
		addr := h.serve(s, udpServer(t, says("a")))
		c := dialUDP(t, netip.AddrPortFrom(client, addr.Port()))
		if may {
			query(t, c, "x")
			return
		}
		h.awaitRefused(c)
	})
}

// awaitRefused sends a datagram and waits until it is refused because the client may not come.
func (h *house) awaitRefused(c *net.UDPConn) {
	h.Helper()
	before := h.notAllowed()
	_, _ = c.Write([]byte("refused"))
	eventually(h.T, equals("refused clients", h.notAllowed, before+1))
}

// A datagram of a client that may not come is dropped. A reload ends the session of such a client at the next datagram.
func TestOnlyAllowedClientsHaveSessions(t *testing.T) {
	for _, oneWay := range []bool{false, true} {
		t.Run(fmt.Sprint("one-way ", oneWay), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				next := h.records()
				arrived := make(chan string, 1000)
				server := udpServer(t, func(b []byte) []byte {
					arrived <- string(b)
					return b
				})
				spec := Service{Protocol: UDP, IdleTimeout: time.Hour, Allow: prefixes("127.0.0.1/32")}
				if oneWay {
					spec.Responses = -1
				}
				addr := h.serve(spec, server)
				sessions := func() int64 { return h.stats().SessionsActive }
				c, other := dialUDP(t, addr), dialFrom(t, "127.0.0.2", addr)
				serve := func(c *net.UDPConn, text string) {
					t.Helper()
					eventually(t, func() error {
						_, _ = c.Write([]byte(text))
						for {
							select {
							case got := <-arrived:
								if got == text {
									return nil
								}
							case <-time.After(20 * time.Millisecond):
								return errPending
							}
						}
					})
				}
				serve(c, "allowed")
				h.awaitRefused(other)
				eventually(t, func() error { // each datagram is counted as refused first, and then as dropped
					s := h.stats()
					if s.SessionsActive != 1 || s.Sessions != 1 || s.DatagramsDropped != h.notAllowed() {
						return fmt.Errorf("%d sessions, %d began, %d datagrams dropped; want 1, 1 and %d",
							s.SessionsActive, s.Sessions, s.DatagramsDropped, h.notAllowed())
					}
					return nil
				})

				spec.Allow, spec.Deny = nil, prefixes("127.0.0.1/32")
				h.serve(spec, server)
				if n := sessions(); n != 1 {
					t.Errorf("%d sessions after the reload, want 1 until the next datagram", n)
				}
				serve(other, "allowed now")
				h.awaitRefused(c)
				if r := next(); r.Reason != ReasonNotAllowed || r.Refused != "" || r.Client.Addr() != loopback.Addr() {
					t.Errorf("got the access record %+v", r)
				}
				eventually(t, equals("sessions", sessions, 1))
				for len(arrived) > 0 {
					if got := <-arrived; got == "refused" {
						t.Error("a datagram arrived whose client may not come")
					}
				}

				spec.Deny = nil
				h.serve(spec, server)
				serve(c, "back")
				eventually(t, equals("sessions", sessions, 2))
			})
		})
	}
}

// dialFrom is dialUDP from another address of this host.
func dialFrom(t *testing.T, source string, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(source)}, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A flood of datagrams of a client that may not come allocates nothing.
func TestRefusedDatagramsAllocateNothing(t *testing.T) {
	s, _ := sessionService(Service{Protocol: UDP, Deny: prefixes("127.0.0.0/8")}, "a")
	refuse := func() {
		if _, ok := s.beginSession(sessionClient, 0, &lb.Tried{}, sessionOpener{}); ok {
			t.Fatal("a session began")
		}
	}
	refuse() // the first one is logged
	if n := testing.AllocsPerRun(1000, refuse); n != 0 {
		t.Errorf("%v allocations for each datagram, want none", n)
	}
}

// The log has one line about many clients that may not come. They do not suppress a line about a fault.
func TestLogOfClientsThatMayNotCome(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		addr := h.serve(Service{Deny: prefixes("127.0.0.2/32")})
		const clients = 20
		for range clients {
			_, err := greetedFrom(t, "127.0.0.2", addr)
			wantReset(t, err)
		}
		eventually(t, equals("clients that may not come", h.notAllowed, clients))
		// A slow machine may need longer than reportEvery for them, so the number of lines has no exact bound.
		n := strings.Count(log.String(), "is in deny, or not in allow")
		if n == 0 || n > clients/2 {
			t.Errorf("%d lines about %d clients, want few:\n%s", n, clients, log.String())
		}
		_, err := greetedFrom(t, "127.0.0.1", addr)
		wantReset(t, err)
		eventually(t, func() error {
			if !strings.Contains(log.String(), lb.ErrMissingEndpoints.Error()) {
				return fmt.Errorf("no line about the endpoints:\n%s", log.String())
			}
			return nil
		})
	})
}
