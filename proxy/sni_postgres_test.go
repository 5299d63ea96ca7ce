package proxy

import (
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
)

// asPostgres answers sslRequest with a byte, and then does as repeats does.
func asPostgres(name, answer string) func(c testConn) {
	return func(c testConn) {
		b := make([]byte, len(sslRequest))
		if readExactly(c, b) != nil || string(b) != sslRequest {
			io.WriteString(c, fmt.Sprintf("no request but %q", b))
			return
		}
		io.WriteString(c, answer)
		if answer == "S" {
			repeats(name)(c)
		}
	}
}

// asking sends a request of PostgreSQL and expects an answer.
func sendRequest(t *testing.T, c net.Conn, request, answer string) {
	t.Helper()
	io.WriteString(c, request)
	got := make([]byte, 1)
	if err := readExactly(c, got); err != nil || string(got) != answer {
		t.Fatalf("got %q, %v, want %q", got, err, answer)
	}
}

// shareAsPostgres is share with one service that has names and another one that has none. Their servers answer
// sslRequest.
func (h *house) shareAsPostgres(named Service, db []netip.AddrPort, rest ...netip.AddrPort) netip.AddrPort {
	h.Helper()
	if h.Proxier == nil {
		h.start()
	}
	at := freePort(h.T, TCP)
	h.endpoints("db", db...)
	h.endpoints("rest", rest...)
	named.Name, named.SNI, named.Listen = "db", []string{"db.example.com"}, listen(at)
	named.ConnectTimeout = 20 * time.Second
	all := []Service{named, {Name: "rest", Listen: listen(at), ConnectTimeout: 20 * time.Second}}
	if err := h.Apply(all); err != nil {
		h.Fatal(err)
	}
	return at
}

// A client of PostgreSQL asks for TLS first. Lictor answers, the ClientHello chooses, and the endpoint is asked too.
func TestPostgresClients(t *testing.T) {
	hello := helloTo("db.example.com")
	startup := "\x00\x00\x00\x09\x00\x03\x00\x00\x00"
	forEachEngine(t, func(t *testing.T, h *house) {
		told := records(h)
		at := h.shareAsPostgres(Service{}, []netip.AddrPort{tcpServer(t, asPostgres("db", "S"))},
			tcpServer(t, repeats("rest")))
		c := dialTCP(t, at)
		sendRequest(t, c, sslRequest, "S")
		exchangeAs(t, c, hello, "db")
		c.Close()
		if r := <-told; r.Up != int64(len(hello)) || r.Down != r.Up+3 {
			t.Errorf("got %+v, want only the bytes behind the request", r)
		}
		c = dialTCP(t, at)
		sendRequest(t, c, gssEncRequest, "N")
		sendRequest(t, c, sslRequest, "S")
		exchangeAs(t, c, hello, "db")
		c = dialTCP(t, at)
		sendRequest(t, c, gssEncRequest, "N")
		exchangeAs(t, c, startup, "rest")
		servedBy(t, at, startup, "rest")
		c = dialTCP(t, at)
		sendRequest(t, c, gssEncRequest, "N")
		io.WriteString(c, gssEncRequest)
		_, err := c.Read(make([]byte, 1))
		wantReset(t, err)
		c = dialTCP(t, at)
		sendRequest(t, c, sslRequest, "S")
		io.WriteString(c, startup)
		_, err = c.Read(make([]byte, 1))
		wantReset(t, err)
	})
}

// The endpoint gets its PROXY header before it is asked for TLS.
func TestPostgresBehindPROXYHeader(t *testing.T) {
	hello := helloTo("db.example.com")
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, func(c testConn) {
			if header, err := parseHeader(c); err != nil || header.Src != addrOf(c.RemoteAddr()) &&
				!header.Src.Addr().IsLoopback() {
				io.WriteString(c, "no header")
				return
			}
			asPostgres("db", "S")(c)
		})
		at := h.shareAsPostgres(Service{SendProxy: proxyproto.V2}, []netip.AddrPort{server})
		c := dialTCP(t, at)
		sendRequest(t, c, sslRequest, "S")
		exchangeAs(t, c, hello, "db")
	})
}

// An endpoint that does not accept TLS was not reached: another one is tried, and the log says why.
func TestPostgresEndpointWithoutTLS(t *testing.T) {
	hello := helloTo("db.example.com")
	for _, tt := range []struct {
		answer, why string
		cause       lb.Cause
	}{
		{"N", "the endpoint refuses TLS: turn on ssl in the configuration of that PostgreSQL", lb.Handshake},
		{"E", "it answered PostgreSQL's request for TLS with 'E'", lb.Handshake},
		{"", "connection reset by peer", lb.Reset},
	} {
		t.Run("answer "+tt.answer, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				log := &testproc.Log{}
				h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
				bad := tcpServer(t, asPostgres("bad", tt.answer))
				h.balancer.Configure("db", lb.Options{MaxFails: -1})
				at := h.shareAsPostgres(Service{}, []netip.AddrPort{bad, tcpServer(t, asPostgres("db", "S"))})
				for range 2 {
					c := dialTCP(t, at)
					sendRequest(t, c, sslRequest, "S")
					exchangeAs(t, c, hello, "db")
				}
				if s := h.of("db"); s.DialsFailedBy[tt.cause] != 1 || s.Dials.Count() != 2 {
					t.Errorf("got %+v, want one failed dial and two others", s)
				}
				if !strings.Contains(log.String(), tt.why) {
					t.Errorf("no %q in the log:\n%s", tt.why, log)
				}
				h.endpoints("db", bad)
				c := dialTCP(t, at)
				sendRequest(t, c, sslRequest, "S")
				io.WriteString(c, hello)
				_, err := c.Read(make([]byte, 1))
				wantReset(t, err)
				eventually(t, equals("unreached", func() int64 { return h.of("db").RefusedBy[RefusedUnreached] }, 1))
			})
		})
	}
}

// An endpoint that does not answer the request for TLS was not reached in time.
func TestPostgresEndpointThatIsSilent(t *testing.T) {
	hello := helloTo("db.example.com")
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		silent := tcpServer(t, func(c testConn) { io.Copy(io.Discard, c) })
		h.start()
		h.balancer.Configure("db", lb.Options{MaxFails: -1})
		at := freePort(t, TCP)
		h.endpoints("db", silent)
		s := Service{Name: "db", SNI: []string{"db.example.com"}, Listen: listen(at),
			ConnectTimeout: 300 * time.Millisecond}
		if err := h.Apply([]Service{s}); err != nil {
			t.Fatal(err)
		}
		c := dialTCP(t, at)
		sendRequest(t, c, sslRequest, "S")
		io.WriteString(c, hello)
		_, err := c.Read(make([]byte, 1))
		wantReset(t, err)
		eventually(t, equals("failed", func() int64 { return h.of("db").DialsFailedBy[lb.Unreachable] }, 1))
		gone := dialTCP(t, at)
		sendRequest(t, gone, sslRequest, "S")
		io.WriteString(gone, hello)
		gone.SetLinger(0)
		gone.Close()
		eventually(t, equals("open", func() int64 { return h.of("db").ConnectionsActive }, 0))
	})
}
