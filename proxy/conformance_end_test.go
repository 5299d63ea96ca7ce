package proxy

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An endCase is one way in which a TCP connection or a UDP session ends.
type endCase struct {
	name    string
	want    string // the whole text, equal for all engines
	service Service
	balance lb.Options
	// run makes one connection or session end. Others may end after it.
	run func(t *testing.T, h *house, at netip.AddrPort)
}

const resetByPeer = ": connection reset by peer"

// testReasons checks the reason of the first record on each engine.
func testReasons(t *testing.T, cases []endCase, servers func(t *testing.T) []netip.AddrPort) {
	t.Parallel()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngineAtOnce(t, func(t *testing.T, h *house) {
				next := h.records()
				h.balancer.Configure("s", tt.balance)
				service := tt.service
				service.Listen = []netip.AddrPort{freePort(t, service.Protocol)}
				at := h.serve(service, servers(t)...)
				tt.run(t, h, at)
				r := next()
				if got := endingOf(&r); got != tt.want || r.Listener.AddrPort != at {
					t.Errorf("got %q at %v, want %q at %v: %+v", got, r.Listener, tt.want, at, r)
				}
				for why, n := range h.stats().RefusedBy {
					if r.Refused == Refusal(why).String() && n == 0 {
						t.Errorf("the record says %s, which was not counted", r.Refused)
					}
				}
			})
		})
	}
}

// endingOf returns all that a record says of the end, in one text.
func endingOf(r *AccessRecord) string {
	text := r.Reason
	if r.Refused != "" {
		text += ": " + r.Refused
	}
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return text
}

// obedient echoes each byte that its client sends, and then does what the byte says.
func obedient(c testConn) {
	var b [1]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		c.Write(b[:])
		switch b[0] {
		case 'f': // FIN
			return
		case 'r': // RST
			c.SetLinger(0)
			return
		case 'd': // half-close
			c.CloseWrite()
		case 's': // send without end
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
	}
}

// instruct connects to at and sends the byte to obedient.
func instruct(t *testing.T, at netip.AddrPort, what string) testConn {
	t.Helper()
	c := dialTCP(t, at)
	exchange(t, c, what)
	return c
}

func resetTCP(c testConn) {
	c.SetLinger(0)
	c.Close()
}

// atOnce dials at. A reset may come before Dial returns.
func atOnce(t *testing.T, at netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if isReset(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

// queue lets one client be served, and returns a second client, which waits for a free slot.
func queue(t *testing.T, h *house, at netip.AddrPort) testConn {
	t.Helper()
	instruct(t, at, "x")
	c := dialTCP(t, at)
	eventually(t, equals("waiting", h.waiting, 1))
	return c
}

// dialling returns a client whose endpoint does not answer.
func dialling(t *testing.T, h *house, at netip.AddrPort) testConn {
	t.Helper()
	h.endpoints("s", stuckPort(t))
	c := dialTCP(t, at)
	eventually(t, equals("clients", h.accepted, 1))
	eventually(t, func() error {
		page, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 1})
		if err == nil && (len(page) != 1 || page[0].State != ConnectionConnecting) {
			err = errPending
		}
		return err
	})
	return c
}

func TestTCPReasons(t *testing.T) {
	testReasons(t, slices.Concat(tcpEndsOfPeers(), tcpEndsByLimits(), tcpEndsWithoutEndpoint(), tcpEndsInTheQueue()),
		func(t *testing.T) []netip.AddrPort { return []netip.AddrPort{tcpServer(t, obedient)} })
}

// tcpEndsOfPeers returns the ends that a peer causes.
func tcpEndsOfPeers() []endCase {
	return []endCase{
		{name: "the client closes", want: ReasonClientClosed,
			run: func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "x").Close() }},
		{name: "the endpoint closes", want: ReasonEndpointClosed,
			run: func(t *testing.T, _ *house, at netip.AddrPort) {
				c := instruct(t, at, "f")
				io.Copy(io.Discard, c)
				c.Close()
			}},
		{name: "the client resets", want: ReasonClientFailed + resetByPeer,
			run: func(t *testing.T, _ *house, at netip.AddrPort) { resetTCP(instruct(t, at, "x")) }},
		{name: "the client resets while bulk is sent to it", want: ReasonClientFailed + resetByPeer,
			run: func(t *testing.T, _ *house, at netip.AddrPort) {
				c := instruct(t, at, "s")
				io.CopyN(io.Discard, c, 1<<20)
				resetTCP(c)
			}},
		{name: "the client resets and takes nothing", want: ReasonClientFailed + resetByPeer,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				c := instruct(t, at, "s")
				awaitStandstill(t, h)
				resetTCP(c)
			}},
		{name: "the endpoint resets", want: ReasonEndpointFailed + resetByPeer,
			run: func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "r") }},
		{name: "the endpoint resets while bulk is sent to it", want: ReasonEndpointFailed + resetByPeer,
			run: func(t *testing.T, _ *house, at netip.AddrPort) {
				c := instruct(t, at, "r")
				for {
					if _, err := c.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			}},
	}
}

// tcpEndsByLimits returns the ends that a limit or an operator causes.
func tcpEndsByLimits() []endCase {
	return []endCase{
		{name: "nothing moves", want: ReasonIdle, service: Service{IdleTimeout: 100 * time.Millisecond},
			run: func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "x") }},
		{name: "the client closes its side, and then nothing moves", want: ReasonClientClosed,
			service: Service{HalfCloseTimeout: 100 * time.Millisecond},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s", tcpServer(t, func(c testConn) {
					io.Copy(c, c)
					<-t.Context().Done()
				}))
				instruct(t, at, "x").CloseWrite()
			}},
		{name: "the endpoint closes its side, and then nothing moves", want: ReasonEndpointClosed,
			service: Service{HalfCloseTimeout: 100 * time.Millisecond},
			run:     func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "d") }},
		{name: "the client takes nothing", want: ReasonIdle, service: Service{IdleTimeout: 300 * time.Millisecond},
			run: func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "s") }},
		{name: "it is old", want: ReasonAge, service: Service{MaxAge: time.Millisecond},
			run: func(t *testing.T, _ *house, at netip.AddrPort) { instruct(t, at, "x") }},
		{name: "its endpoint leaves", want: ReasonEndpointLeft, service: Service{OnLeave: OnLeave{-1, -1, -1}},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				a := watchResets(t)
				h.connected(at, a)
				h.leave(because{a.addr: lb.Critical})
			}},
		{name: "a shutdown", want: ReasonCut,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				instruct(t, at, "x")
				h.Close()
			}},
		{name: "a shutdown has waited for it", want: ReasonCut,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				instruct(t, at, "x")
				h.Shutdown(short(t))
			}},
	}
}

// tcpEndsWithoutEndpoint returns the ends of clients that no endpoint serves.
func tcpEndsWithoutEndpoint() []endCase {
	return []endCase{
		{name: "no endpoint", want: ReasonUnserved + ": no_endpoints",
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s")
				atOnce(t, at)
			}},
		{name: "no endpoint answers", want: ReasonUnserved + ": unreached",
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s", deadPort(t), deadPort(t))
				atOnce(t, at)
			}},
		{name: "no endpoint answers in time", want: ReasonUnserved + ": unreached",
			service: Service{ConnectTimeout: 100 * time.Millisecond},
			run:     func(t *testing.T, h *house, at netip.AddrPort) { h.endpoints("s", stuckPort(t)); atOnce(t, at) }},
		{name: "the endpoint takes the connection and resets it", want: ReasonUnserved + ": unreached",
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s", tcpServer(t, func(c testConn) { c.SetLinger(0) }))
				atOnce(t, at)
			}},
		{name: "too many of one client", want: ReasonPerClient + ": per_client", service: Service{MaxPerClient: 1},
			run: func(t *testing.T, _ *house, at netip.AddrPort) {
				instruct(t, at, "x")
				atOnce(t, at)
			}},
		{name: "the client may not come", want: ReasonNotAllowed + ": not_allowed",
			service: Service{Deny: prefixes("127.0.0.0/8")},
			run:     func(t *testing.T, _ *house, at netip.AddrPort) { atOnce(t, at) }},
		{name: "the client resets while its endpoint is dialled", want: ReasonClientFailed + resetByPeer,
			service: Service{ConnectTimeout: time.Second},
			run:     func(t *testing.T, h *house, at netip.AddrPort) { resetTCP(dialling(t, h, at)) }},
		{name: "a shutdown while the endpoint is dialled", want: ReasonCut,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				dialling(t, h, at)
				h.Close()
			}},
	}
}

// tcpEndsInTheQueue returns the ends of clients that wait for a free slot at an endpoint.
func tcpEndsInTheQueue() []endCase {
	one := lb.Options{MaxConnections: 1, MaxQueue: 3, QueueTimeout: time.Minute}
	short := one
	short.QueueTimeout = 200 * time.Millisecond
	return []endCase{
		{name: "no room in time", want: ReasonUnserved + ": full", balance: short,
			run: func(t *testing.T, h *house, at netip.AddrPort) { queue(t, h, at) }},
		{name: "the client closes while it waits for room", want: ReasonClientClosed, balance: one,
			run: func(t *testing.T, h *house, at netip.AddrPort) { queue(t, h, at).Close() }},
		{name: "the client closes while it waits for room after a failed dial", want: ReasonClientClosed,
			balance: lb.Options{MaxPerEndpoint: 1, MaxQueue: 3, QueueTimeout: time.Minute},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				instruct(t, at, "x")
				busy := h.balancer.Snapshot()[0].Endpoints[0].Addr
				h.endpoints("s", deadPort(t), busy)
				c := dialTCP(t, at)
				eventually(t, equals("waiting", h.waiting, 1))
				if h.stats().DialsFailed == 0 {
					t.Fatal("the client has not tried the other endpoint")
				}
				c.Close()
			}},
		{name: "the client resets while it waits for room", want: ReasonClientFailed + resetByPeer, balance: one,
			run: func(t *testing.T, h *house, at netip.AddrPort) { resetTCP(queue(t, h, at)) }},
		{name: "the client resets after a request while it waits for room", want: ReasonClientFailed + resetByPeer,
			balance: short,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				c := queue(t, h, at)
				io.WriteString(c, "request")
				resetTCP(c)
			}},
		{name: "a shutdown while the client waits for room", want: ReasonCut, balance: one,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				queue(t, h, at) // Close ends both clients
				h.Close()
			}},
	}
}

// awaitStandstill waits until the proxy takes no more bytes from the endpoint, because the client's side is full.
func awaitStandstill(t *testing.T, h *house) {
	t.Helper()
	last, calm := int64(0), 0
	eventually(t, func() error {
		now := h.stats().BytesDown
		if now == 0 || now != last {
			last, calm = now, 0
		}
		if calm++; calm < 30 {
			return errPending
		}
		return nil
	})
}

// sendBoth sends two datagrams, which are all that a one-way session may have.
func sendBoth(t *testing.T, h *house, at netip.AddrPort) {
	t.Helper()
	c := dialUDP(t, at)
	c.Write([]byte("12345"))
	c.Write([]byte("67"))
	eventually(t, equals("datagrams up", func() int64 { return h.stats().DatagramsUp }, 2))
}

func TestUDPReasons(t *testing.T) {
	oneWay := Service{Protocol: UDP, Responses: -1, Requests: 2}
	quick, single := oneWay, oneWay
	quick.IdleTimeout, single.MaxSessions = 100*time.Millisecond, 1
	cases := []endCase{
		{name: "all requests are sent", want: ReasonSent, service: quick, run: sendBoth},
		{name: "all requests are sent, and another session begins", want: ReasonSent, service: single,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				sendBoth(t, h, at)
				dialUDP(t, at).Write([]byte("x"))
			}},
		{name: "all requests are sent, and a shutdown", want: ReasonSent, service: oneWay,
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				sendBoth(t, h, at)
				h.Close()
			}},
		{name: "not all requests are sent", want: ReasonIdle, service: quick,
			run: func(t *testing.T, _ *house, at netip.AddrPort) { dialUDP(t, at).Write([]byte("x")) }},
		{name: "no endpoint refuses or answers", want: ReasonIdle,
			service: Service{Protocol: UDP, IdleTimeout: 100 * time.Millisecond},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s", udpServer(t, func([]byte) []byte { return nil }))
				dialUDP(t, at).Write([]byte("x"))
			}},
		{name: "the endpoint refuses the last datagram", want: ReasonEndpointRefused,
			service: Service{Protocol: UDP, IdleTimeout: 100 * time.Millisecond},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.endpoints("s", deadUDP(t))
				dialUDP(t, at).Write([]byte("x"))
			}},
		{name: "no address of the endpoint's name", want: ReasonEndpointRefused,
			service: Service{Protocol: UDP, IdleTimeout: 100 * time.Millisecond},
			run: func(t *testing.T, h *house, at netip.AddrPort) {
				h.named("not a name")
				dialUDP(t, at).Write([]byte("x"))
			}},
	}
	testReasons(t, cases, func(t *testing.T) []netip.AddrPort { return []netip.AddrPort{udpServer(t, says("a"))} })
}

// named makes one endpoint with a host name the set of s.
func (h *house) named(host string) {
	e := lb.Endpoint{ID: host, Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, 53)}
	h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{e}}})
}
