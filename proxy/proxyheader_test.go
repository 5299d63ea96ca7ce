package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// readHeader reads a header of version 2 and nothing behind it.
func readHeader(r io.Reader) error {
	_, err := parseHeader(r)
	return err
}

func parseHeader(r io.Reader) (h proxyproto.Header, err error) {
	b := make([]byte, 16)
	if _, err = io.ReadFull(r, b); err != nil {
		return h, err
	}
	b = append(b, make([]byte, binary.BigEndian.Uint16(b[14:]))...)
	if _, err = io.ReadFull(r, b[16:]); err != nil {
		return h, err
	}
	h, n, err := proxyproto.Parse(b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("the header has %d bytes of %d", n, len(b))
	}
	return h, err
}

var (
	realClient = netip.MustParseAddrPort("192.0.2.7:4711")
	realServer = netip.MustParseAddrPort("198.51.100.1:5432")
	anyLocal   = &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
)

// records collects what the access log is told.
func records(h *house) <-chan AccessRecord {
	told := make(chan AccessRecord, 100)
	h.options.Access = func(r AccessRecord) { told <- r }
	return told
}

// The tests of connections hold as well if both ends begin with a PROXY header.
func TestConformanceWithProxyHeaders(t *testing.T) {
	proxyHeaders = true
	t.Cleanup(func() { proxyHeaders = false })
	for _, test := range []func(*testing.T){
		TestTCPRotates, TestTCPBulkBothWays, TestTCPHalfCloseByClientKeepsReturnTraffic,
		TestTCPHalfCloseByServerKeepsRequestTraffic, TestTCPResetByClientReachesServer,
		TestTCPResetByServerReachesClientAfterItsBytes, TestTCPEarlyAnswerIsDelivered,
		TestTCPDeadEndpointIsNotNoticedByClients, TestTCPDialThatHangsGoesToTheNextEndpoint, TestTCPBackPressure,
		TestTCPIdlePairHoldsTwoDescriptors, TestTCPEndpointByHostName,
		TestQueuedClientMaySendAndHalfClose, TestClientsQueueForRoom, TestClientsWaitForTheFirstEndpoint,
		TestResetBeforeAnythingMovedCostsNobody, TestResetAfterTheClientSpokeCountsAgainstTheEndpoint,
		TestTCPRandomConnections,
	} {
		test(t)
	}
}

// accepted are headers and what is known of their client. An invalid client is the peer of the connection.
var accepted = []struct {
	name, header string
	client       netip.AddrPort
}{
	{"v1", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 5432\r\n", realClient},
	{"longest v1", "PROXY UNKNOWN " + strings.Repeat("6", 107-16) + "\r\n", netip.AddrPort{}},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", netip.AddrPort{}},
	{"v1 IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 5432\r\n", netip.MustParseAddrPort("[2001:db8::7]:4711")},
	{"v2", string(proxyproto.AppendV2(nil, proxyproto.Header{Src: realClient, Dst: realServer})), realClient},
	{"v2 LOCAL", string(proxyproto.AppendV2(nil, proxyproto.Header{})), netip.AddrPort{}},
	{"v2 with TLVs", string(proxyproto.AppendV2(nil, proxyproto.Header{Src: realClient, Dst: realServer,
		TLVs: proxyproto.TLVs(nil).Append(0xE0, bytes.Repeat([]byte("x"), 3000))})), realClient},
}

// The address in a header is the client's, however the header arrives, and the bytes behind it reach the server.
func TestAcceptProxy(t *testing.T) {
	for _, tt := range accepted {
		for _, how := range []string{"whole", "with data", "byte by byte"} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				forEachEngine(t, func(t *testing.T, h *house) { testAcceptProxy(t, h, tt.header, how, tt.client) })
			})
		}
	}
}

func testAcceptProxy(t *testing.T, h *house, header, how string, client netip.AddrPort) {
	told := records(h)
	addr := h.serve(Service{AcceptProxy: anyLocal}, tcpServer(t, echo))
	c := dialTCP(t, addr)
	if !client.IsValid() {
		client = c.LocalAddr().(*net.TCPAddr).AddrPort()
	}
	switch how {
	case "whole":
		io.WriteString(c, header)
		exchange(t, c, "request")
	case "with data":
		io.WriteString(c, header+"first")
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "first" {
			t.Fatalf("got %q, %v, want the bytes behind the header", got, err)
		}
	default:
		if len(header) > 200 {
			io.WriteString(c, header[:len(header)-200])
			header = header[len(header)-200:]
		}
		for i := range len(header) {
			io.WriteString(c, header[i:i+1])
		}
		exchange(t, c, "request")
	}
	var list []Connection
	eventually(t, func() error { list, _, _ = h.Connections(t.Context(), ConnectionQuery{Limit: 10}); return nil })
	if len(list) != 1 || list[0].Client != client {
		t.Errorf("got %+v, want one connection of %s", list, client)
	}
	c.Close()
	if r := <-told; r.Client != client || r.Up != r.Down || r.Up == 0 {
		t.Errorf("got %+v, want the client %s and only its bytes", r, client)
	}
}

// A client that sends no valid header in time is reset, and others are served meanwhile.
func TestAcceptProxyRefuses(t *testing.T) {
	long := proxyproto.AppendV2(nil, proxyproto.Header{Src: realClient, Dst: realServer})
	binary.BigEndian.PutUint16(long[14:], 64<<10-1)
	for _, tt := range []struct{ name, sends, why string }{
		{"no header", "GET / HTTP/1.1\r\n", "the first bytes are not those of a PROXY header"},
		{"bad line", "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "port"},
		{"endless line", "PROXY UNKNOWN " + strings.Repeat("x", 100), "longer than 107 bytes"},
		{"64 KB of TLVs", string(long), "longer than 4096 bytes"},
		{"half a header", string(long[:10]), "no header came within"},
		{"nothing", "", "no header came within"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				log, told := &testproc.Log{}, records(h)
				h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
				a := *anyLocal
				a.Timeout = 300 * time.Millisecond
				addr := h.serve(Service{AcceptProxy: &a}, tcpServer(t, echo))
				c := dialTCP(t, addr)
				io.WriteString(c, tt.sends)
				good := dialTCP(t, addr)
				good.Write(proxyproto.AppendV1(nil, realClient, realServer))
				exchange(t, good, "request")
				_, err := c.Read(make([]byte, 1))
				wantReset(t, err)
				r := <-told
				if r.Refused != "proxy_header" || r.Client != c.LocalAddr().(*net.TCPAddr).AddrPort() {
					t.Errorf("got %+v, want a refused client", r)
				}
				eventually(t, func() error {
					if !strings.Contains(log.String(), tt.why) {
						return fmt.Errorf("no %q in the log:\n%s", tt.why, log.String())
					}
					return nil
				})
				eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedProxyHeader] }, 1))
			})
		})
	}
}

// A header is believed only if it comes from a proxy that is named.
func TestAcceptProxyTrustsOnlyFrom(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, func(c testConn) { t.Error("a server was reached") })
		addr := h.serve(Service{AcceptProxy: &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
			server)
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
		if err == nil {
			defer c.Close()
			if _, err = c.Write(proxyproto.AppendV1(nil, realClient, realServer)); err == nil {
				_, err = c.Read(make([]byte, 1))
			}
		}
		wantReset(t, err) // the reset may come before Dial or Write returns
		eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedProxyHeader] }, 1))
	})
}

// The rules on clients are about the client that the header names. The proxy need not be allowed itself.
func TestAcceptProxyAndRulesOnClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{AcceptProxy: anyLocal, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}}, tcpServer(t, echo))
		from := func(client string) testConn {
			c := dialTCP(t, addr)
			c.Write(proxyproto.AppendV2(nil, proxyproto.Header{Src: netip.MustParseAddrPort(client), Dst: realServer}))
			return c
		}
		exchange(t, from("192.0.2.1:1"), "allowed")
		for _, client := range []string{"192.0.2.9:1", "198.51.100.1:1"} {
			_, err := from(client).Read(make([]byte, 1))
			wantReset(t, err)
		}
		eventually(t, equals("not allowed", func() int64 { return h.stats().RefusedBy[RefusedNotAllowed] }, 2))
		eventually(t, equals("refused", func() int64 { return h.stats().Refused }, 2))
	})
}

// A proxy's check of the port, which connects and closes, is no refused client.
func TestAcceptProxyLetsProxiesCheck(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		told := records(h)
		addr := h.serve(Service{AcceptProxy: anyLocal}, tcpServer(t, echo))
		dialTCP(t, addr).Close()
		if r := <-told; r.Reason != ReasonClientClosed || h.stats().Refused != 0 {
			t.Errorf("got %+v and %d refused, want a client that has closed", r, h.stats().Refused)
		}
	})
}

// Limits count the clients that the headers name, not the proxy.
func TestAcceptProxyLimitsTheRealClient(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{AcceptProxy: anyLocal, MaxPerClient: 1}, tcpServer(t, echo))
		from := func(client string) testConn {
			c := dialTCP(t, addr)
			c.Write(proxyproto.AppendV1(nil, netip.MustParseAddrPort(client), realServer))
			return c
		}
		exchange(t, from("192.0.2.1:1"), "first")
		exchange(t, from("192.0.2.2:1"), "other")
		_, err := from("192.0.2.1:2").Read(make([]byte, 1))
		wantReset(t, err)
	})
}

// A flood of half headers holds descriptors up to the time limit. Clients of another service are served meanwhile.
func TestHalfHeadersLeaveNothing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a := *anyLocal
		a.Timeout = time.Second
		h.start()
		server := tcpServer(t, echo)
		h.endpoints("a", server)
		h.endpoints("b", server)
		services := []Service{{Name: "a", AcceptProxy: &a, Listen: listen(loopback)},
			{Name: "b", Listen: listen(loopback)}}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		at := map[string]netip.AddrPort{}
		for _, l := range h.Listeners() {
			at[l.Service] = l.Addr.AddrPort
		}
		for range 200 {
			io.WriteString(dialTCP(t, at["a"]), "PROXY TCP4 ")
		}
		exchange(t, dialTCP(t, at["b"]), "served")
		eventually(t, func() error {
			if s := h.of("a"); s.RefusedBy[RefusedProxyHeader] != 200 || s.ConnectionsActive != 0 {
				return fmt.Errorf("%d were refused and %d are open", s.Refused, s.ConnectionsActive)
			}
			return nil
		})
	})
}

// firstBytes returns the bytes of the first segment. If injected faults break writes, it reads on until all have come.
func firstBytes(c net.Conn, all func(b string) bool) string {
	b := make([]byte, 1000)
	n, err := c.Read(b)
	for sys.Faults && err == nil && !all(string(b[:n])) {
		var more int
		more, err = c.Read(b[n:])
		n += more
	}
	return string(b[:n])
}

// A server gets the header at once, and in the same segment what the client has sent by then.
func TestSendProxy(t *testing.T) {
	for _, v := range []proxyproto.Version{proxyproto.V1, proxyproto.V2} {
		t.Run(fmt.Sprint("v", int(v)), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				told, first := records(h), make(chan string, 2)
				addr := h.serve(Service{SendProxy: v}, tcpServer(t, func(c testConn) {
					first <- firstBytes(c, func(b string) bool {
						_, n, _ := proxyproto.Parse([]byte(b))
						return n > 0
					})
					echo(c)
				}))
				c := dialTCP(t, addr)
				header := <-first // the client has not sent anything
				exchange(t, c, "request")
				p, n, err := proxyproto.Parse([]byte(header))
				client := c.LocalAddr().(*net.TCPAddr).AddrPort()
				if err != nil || n != len(header) || p.Src != client || p.Dst != addr {
					t.Errorf("got %+v, %d bytes, %v, want %s to %s", p, n, err, client, addr)
				}
				id := ""
				for typ, value := range p.TLVs.All() {
					if typ == proxyproto.UniqueID {
						id = string(value)
					}
				}
				if (len(id) == 32) != (v == proxyproto.V2) {
					t.Errorf("the unique ID is %q", id)
				}
				c.Close()
				if r := <-told; r.Up != 7 || r.Down != 7 {
					t.Errorf("got %+v, want the client's 7 bytes both ways", r)
				}
			})
		})
	}
}

// What a client has sent before its endpoint is reached leaves together with the header.
func TestSendProxyWithFirstBytes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		first := make(chan string, 1)
		server := tcpServer(t, func(c testConn) {
			first <- firstBytes(c, func(b string) bool { return strings.HasSuffix(b, "request") })
		})
		h.balancer.Configure("s", lb.Options{MaxQueue: 10, EmptyWait: time.Minute})
		addr := h.serve(Service{SendProxy: proxyproto.V1, AcceptProxy: anyLocal}, server)
		h.endpoints("s")
		c := dialTCP(t, addr)
		c.Write(append(proxyproto.AppendV1(nil, realClient, realServer), "request"...))
		eventually(t, func() error {
			list, _, _ := h.Connections(t.Context(), ConnectionQuery{Limit: 1})
			if len(list) != 1 || list[0].State != ConnectionWaiting {
				return fmt.Errorf("got %+v", list)
			}
			return nil
		})
		h.endpoints("s", server)
		if got := <-first; got != "PROXY TCP4 192.0.2.7 198.51.100.1 4711 5432\r\nrequest" {
			t.Errorf("got %q", got)
		}
	})
}

// An endpoint that resets after the header has taken nothing of the client, so another one gets the client and a header
// of its own.
func TestSendProxyAgainToTheNextEndpoint(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		bad := tcpServer(t, func(c testConn) {
			readHeader(c)
			c.SetLinger(0)
		})
		headers := make(chan proxyproto.Header, 20)
		good := tcpServer(t, func(c testConn) {
			p, err := parseHeader(c)
			if err != nil {
				t.Error(err)
			}
			headers <- p
			io.WriteString(c, "greeting")
		})
		addr := h.serve(Service{SendProxy: proxyproto.V2}, bad, good)
		for range 4 {
			c := dialTCP(t, addr)
			if b, err := io.ReadAll(c); err != nil || string(b) != "greeting" {
				t.Fatalf("got %q, %v, want the greeting", b, err)
			}
			if p := <-headers; p.Src != c.LocalAddr().(*net.TCPAddr).AddrPort() {
				t.Errorf("got %+v, want the client", p)
			}
		}
		if s := h.stats(); s.DialsFailedBy[lb.Reset] == 0 || s.Refused != 0 {
			t.Errorf("got %+v, want resets that no client noticed", s)
		}
	})
}

// A header that came in goes out with the addresses and the TLVs that it had, but with a unique ID of Lictor.
func TestProxyHeadersArePassedOn(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		headers := make(chan proxyproto.Header, 1)
		addr := h.serve(Service{SendProxy: proxyproto.V2, AcceptProxy: anyLocal}, tcpServer(t, func(c testConn) {
			p, err := parseHeader(c)
			if err != nil {
				t.Error(err)
			}
			headers <- p
		}))
		tlvs := proxyproto.TLVs(nil).Append(0x02, []byte("db.example.com"))
		tlvs = tlvs.Append(proxyproto.UniqueID, []byte("forged"))
		in := proxyproto.Header{Src: realClient, Dst: realServer, TLVs: tlvs}
		dialTCP(t, addr).Write(proxyproto.AppendV2(nil, in))
		p := <-headers
		if p.Src != realClient || p.Dst != realServer {
			t.Errorf("got %+v", p)
		}
		seen := map[proxyproto.Type]string{}
		for typ, value := range p.TLVs.All() {
			seen[typ] += string(value)
		}
		if seen[0x02] != "db.example.com" || len(seen[proxyproto.UniqueID]) != 32 || len(seen) != 2 {
			t.Errorf("got %q", seen)
		}
	})
}

// A client whose header has not come yet does not hold up a shutdown, and a cut ends it.
func TestCutWhileTheHeaderIsMissing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a := *anyLocal
		a.Timeout = time.Hour
		addr := h.serve(Service{AcceptProxy: &a}, tcpServer(t, echo))
		c := dialTCP(t, addr)
		io.WriteString(c, "PROXY ")
		eventually(t, func() error {
			list, _, _ := h.Connections(t.Context(), ConnectionQuery{Limit: 1})
			if len(list) != 1 || list[0].State != ConnectionGreeting {
				return fmt.Errorf("got %+v", list)
			}
			return nil
		})
		if err := h.Shutdown(short(t)); err == nil {
			t.Error("got no error, want the end of the context")
		}
		if _, err := c.Read(make([]byte, 1)); !isReset(err) && !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the end", err)
		}
	})
}
