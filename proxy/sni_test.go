package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
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
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// opensWith says what clients and servers of the suite say before anything else. A test that runs other tests sets
// it.
var opensWith struct {
	hello    bool // clients send a ClientHello, which chooses the service, and servers read it
	postgres bool // clients ask for TLS before that as those of PostgreSQL do, and servers accept
}

// suiteHello is the ClientHello of the suite's clients. It has several segments and two records.
var suiteHello = splitRecord(helloTo("s.example", strings.Fields(strings.Repeat("some-protocol ", 300))...), 1000)

// helloTo returns the ClientHello of a client of package crypto/tls. An empty name sends none.
func helloTo(name string, protocols ...string) string {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	c := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protocols}
	go func() { _ = tls.Client(client, c).Handshake() }() // fails, because nobody answers
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); err != nil {
		panic(err)
	}
	b = append(b, make([]byte, binary.BigEndian.Uint16(b[3:]))...)
	if _, err := io.ReadFull(server, b[5:]); err != nil {
		panic(err)
	}
	return string(b)
}

// splitRecord returns one record as records of at most size bytes.
func splitRecord(record string, size int) (all string) {
	for rest := record[5:]; rest != ""; {
		n := min(size, len(rest))
		all += record[:3] + string(binary.BigEndian.AppendUint16(nil, uint16(n))) + rest[:n]
		rest = rest[n:]
	}
	return all
}

// beginTLS sends what a client of the suite sends instead of a whole handshake.
func beginTLS(c net.Conn) {
	if opensWith.postgres {
		io.WriteString(c, sslRequest)
		if answer := make([]byte, 1); readExactly(c, answer) != nil || answer[0] != sslAccepted {
			return // the test sees that later
		}
	}
	if opensWith.hello {
		io.WriteString(c, suiteHello)
	}
}

// hearTLS reads what beginTLS sends.
func hearTLS(c net.Conn) error {
	want := ""
	if opensWith.postgres {
		got := make([]byte, len(sslRequest))
		if err := readExactly(c, got); err != nil || string(got) != sslRequest {
			return fmt.Errorf("got %q, %w", got, err)
		}
		if _, err := c.Write([]byte{sslAccepted}); err != nil {
			return err
		}
	}
	if opensWith.hello {
		want = suiteHello
	}
	got := make([]byte, len(want))
	if err := readExactly(c, got); err != nil || string(got) != want {
		return fmt.Errorf("got %q, %w", got, err)
	}
	return nil
}

// saidFirst returns how many bytes of the application a client of the suite sends before anything else.
func saidFirst() int {
	if opensWith.hello {
		return len(suiteHello)
	}
	return 0
}

func readExactly(c net.Conn, b []byte) error {
	_, err := io.ReadFull(c, b)
	return err
}

// The tests of connections hold as well if a ClientHello chooses the service, alone or behind other openings.
func TestConformanceWithSNI(t *testing.T) {
	t.Cleanup(func() { opensWith.hello, opensWith.postgres, proxyHeaders = false, false, false })
	for _, how := range []struct {
		name              string
		postgres, headers bool
	}{{name: "hello"}, {"headers and postgres", true, true}} {
		t.Run(how.name, func(t *testing.T) {
			opensWith.hello, opensWith.postgres, proxyHeaders = true, how.postgres, how.headers
			for _, test := range []func(*testing.T){
				TestTCPRotates, TestTCPBulkBothWays, TestTCPHalfCloseByClientKeepsReturnTraffic,
				TestTCPHalfCloseByServerKeepsRequestTraffic, TestTCPResetByClientReachesServer,
				TestTCPResetByServerReachesClientAfterItsBytes, TestTCPEarlyAnswerIsDelivered,
				TestTCPDeadEndpointIsNotNoticedByClients, TestTCPDialThatHangsGoesToTheNextEndpoint,
				TestTCPBackPressure, TestTCPIdlePairHoldsTwoDescriptors, TestTCPEndpointByHostName,
				TestQueuedClientMaySendAndHalfClose, TestTCPRandomConnections,
			} {
				test(t)
			}
		})
	}
}

// A tenant is a service of a shared listener, whose server reads a first message of any length and answers with the
// service's name and that message.
type tenant struct {
	name string
	sni  []string
	spec Service
}

// share makes the tenants share one listener, and returns its address. Calling it again keeps the address.
func (h *house) share(at netip.AddrPort, tenants ...tenant) netip.AddrPort {
	h.Helper()
	if h.Proxier == nil {
		h.start()
	}
	if at == (netip.AddrPort{}) {
		at = freePort(h.T, TCP)
	}
	var all []Service
	for _, one := range tenants {
		s := one.spec
		s.Name, s.SNI, s.Listen, s.ConnectTimeout = one.name, one.sni, listen(at), 20*time.Second
		h.endpoints(one.name, tcpServer(h.T, repeats(one.name)))
		all = append(all, s)
	}
	if err := h.Apply(all); err != nil {
		h.Fatal(err)
	}
	return at
}

// repeats answers with a name, and then sends back what it reads.
func repeats(name string) func(c testConn) {
	return func(c testConn) {
		io.WriteString(c, name+":")
		echo(c)
	}
}

// servedBy sends the first bytes of a client, and expects them back from a service. served is empty if the client must
// be reset.
func servedBy(t *testing.T, at netip.AddrPort, sends, service string) {
	t.Helper()
	c := dialTCP(t, at)
	defer c.Close()
	io.WriteString(c, sends)
	if service == "" {
		_, err := c.Read(make([]byte, 1))
		wantReset(t, err)
		return
	}
	want := service + ":" + sends
	got := make([]byte, len(want))
	if err := readExactly(c, got); err != nil || string(got) != want {
		t.Errorf("got %.40q, %v, want %q", got, err, service)
	}
}

var names = []tenant{{name: "db", sni: []string{"db.example.com", "other.example.net"}},
	{name: "wild", sni: []string{"*.example.com"}}, {name: "deep", sni: []string{"*.a.example.com"}}}

func TestSNIChoosesTheService(t *testing.T) {
	long := helloTo("db.example.com", strings.Fields(strings.Repeat("some-protocol ", 1000))...)
	if len(long) < 14000 {
		t.Fatal("the ClientHello is too short for this test")
	}
	for _, rest := range []string{"", "rest"} {
		forEachEngine(t, func(t *testing.T, h *house) {
			all := names
			if rest != "" {
				all = append([]tenant{{name: rest}}, all...)
			}
			at := h.share(netip.AddrPort{}, all...)
			for _, tt := range []struct{ sends, service string }{
				{helloTo("db.example.com"), "db"},
				{helloTo("DB.Example.COM"), "db"},
				{helloTo("other.example.net"), "db"},
				{helloTo("web.example.com"), "wild"},
				{helloTo("x.a.example.com"), "deep"},
				{helloTo("x.b.example.com"), rest},
				{helloTo("example.com"), rest},
				{helloTo("other.example"), rest},
				{helloTo("com"), rest},
				{helloTo(""), rest},
				{helloTo("192.0.2.1"), rest},
				{long, "db"},
				{splitRecord(long, 700), "db"},
				{splitRecord(helloTo("web.example.com"), 1), "wild"},
				{"GET / HTTP/1.1\r\n", rest},
				{"\x80\x2e\x01\x03\x01", rest},                               // SSL 2.0
				{"\x00\x00\x00\x10\x04\xd2\x16\x2e87654321", rest},           // CancelRequest of PostgreSQL
				{"\x00\x00\x00\x09\x00\x03\x00\x00\x00", rest},               // StartupMessage of PostgreSQL
				{helloTo("db.example.com")[:9] + "\x16\x03\x01\x00\x00", ""}, // an empty record
			} {
				servedBy(t, at, tt.sends, tt.service)
			}
		})
	}
}

// A ClientHello may come in segments of any size.
func TestSNIByteByByte(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.share(netip.AddrPort{}, names...)
		for _, size := range []int{1, 100} {
			hello := splitRecord(helloTo("db.example.com"), 200)
			c := dialTCP(t, at)
			for rest := []byte(hello); len(rest) > 0; {
				n := min(size, len(rest))
				c.Write(rest[:n])
				rest = rest[n:]
				time.Sleep(50 * time.Microsecond) // makes several segments likely
			}
			got := make([]byte, len("db:"+hello))
			if err := readExactly(c, got); err != nil || string(got) != "db:"+hello {
				t.Errorf("got %.40q, %v", got, err)
			}
		}
	})
}

// Clients whose service cannot be known are reset and counted, with a line in the log that says why. They count for the
// service that comes first.
func TestSNIRefusals(t *testing.T) {
	hello := helloTo("db.example.com")
	for _, tt := range []struct{ name, sends, why string }{
		{"unknown name", helloTo("nobody.example"), `no service of this listener has the name \"nobody.example\"`},
		{"no name", helloTo(""), "the client sent no server name"},
		{"no TLS", "GET / HTTP/1.1\r\n", "the client does not speak TLS"},
		{"invalid", hello[:5+4+2+32] + strings.Repeat("\xff", len(hello)-43), "invalid ClientHello"},
		{"too long", "\x16\x03\x01\x40\x00\x01\xff\xff\xff" + strings.Repeat("\x00", 16384), "longer than 65536 bytes"},
		{"bytes behind a request", sslRequest + hello, "bytes behind its request for encryption"},
		{"bytes behind another request", gssEncRequest + sslRequest, "bytes behind its request for encryption"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				if sys.Faults && strings.HasPrefix(tt.name, "bytes behind") {
					return // a short read may hide the bytes
				}
				log, told := &testproc.Log{}, records(h)
				h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
				at := h.share(netip.AddrPort{}, names...)
				servedBy(t, at, tt.sends, "")
				if r := <-told; r.Refused != "no_route" || r.Service != "db" || r.Reason != ReasonUnserved {
					t.Errorf("got %+v, want a refused client", r)
				}
				eventually(t, func() error {
					if !strings.Contains(log.String(), tt.why) {
						return fmt.Errorf("no %q in the log:\n%s", tt.why, log.String())
					}
					return nil
				})
				eventually(t, equals("refused", func() int64 { return h.of("db").RefusedBy[RefusedNoRoute] }, 1))
				eventually(t, equals("open", func() int64 { return h.of("db").ConnectionsActive }, 0))
				eventually(t, equals("connections", func() int64 { return h.of("db").Connections }, 1))
			})
		})
	}
}

// A client that sends nothing, or not enough, is refused in time: its server may be one that speaks first.
func TestSNIWaitsNotForEver(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		at := h.share(netip.AddrPort{}, append([]tenant{{name: "rest"}}, names...)...)
		var clients []testConn
		for _, sends := range []string{"", "\x16", helloTo("db.example.com")[:100], sslRequest[:7], sslRequest} {
			c := dialTCP(t, at)
			io.WriteString(c, sends)
			clients = append(clients, c)
		}
		servedBy(t, at, helloTo("db.example.com"), "db")
		for _, c := range clients {
			_, err := io.Copy(io.Discard, c)
			wantReset(t, err)
		}
		eventually(t, equals("refused", func() int64 { return h.of("rest").RefusedBy[RefusedNoRoute] }, 5))
		const why = "if the server of this protocol speaks first, such a service needs a listener of its own"
		if !strings.Contains(log.String(), why) {
			t.Errorf("no %q in the log:\n%s", why, log)
		}
	})
}

// A client that closes before it has sent anything is no refused client, and one that closes within its ClientHello is.
func TestSNIClientGoes(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		told := records(h)
		at := h.share(netip.AddrPort{}, names...)
		dialTCP(t, at).Close()
		if r := <-told; r.Reason != ReasonClientClosed || h.of("db").Refused != 0 {
			t.Errorf("got %+v, want a client that has closed", r)
		}
		c := dialTCP(t, at)
		io.WriteString(c, helloTo("db.example.com")[:50])
		c.CloseWrite()
		if r := <-told; r.Refused != "no_route" {
			t.Errorf("got %+v, want a refused client", r)
		}
	})
}

// A client's connection counts for its own service: its limits and rules hold, and the records have its name.
func TestSNIClientsCountForTheirService(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		told := records(h)
		local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		at := h.share(netip.AddrPort{}, tenant{name: "a", sni: []string{"a.example"}, spec: Service{Deny: local}},
			tenant{name: "b", sni: []string{"b.example"}, spec: Service{MaxPerClient: 1}})
		hello := helloTo("b.example")
		c := dialTCP(t, at)
		exchangeAs(t, c, hello, "b")
		eventually(t, func() error {
			list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10, Service: "b"})
			if err != nil || len(list) != 1 || list[0].Up != int64(len(hello)) {
				return fmt.Errorf("got %+v, %w, want one connection of b", list, err)
			}
			return nil
		})
		servedBy(t, at, hello, "")
		if r := <-told; r.Service != "b" || r.Reason != ReasonPerClient {
			t.Errorf("got %+v, want a second connection that was refused", r)
		}
		servedBy(t, at, helloTo("a.example"), "")
		if r := <-told; r.Service != "a" || r.Reason != ReasonNotAllowed {
			t.Errorf("got %+v, want a client that a does not allow", r)
		}
		eventually(t, func() error { // a connection counts as open until shortly after its record
			a, b := h.of("a"), h.of("b")
			if a.Connections != 1 || a.ConnectionsActive != 0 || b.Connections != 2 || b.ConnectionsActive != 1 ||
				a.Descriptors.Taken != 0 || b.Descriptors.Taken != pairDescriptors {
				return fmt.Errorf("got %+v and %+v, want 1 connection of a, and 2 of b, of which one is open", a, b)
			}
			return nil
		})
		c.Close()
		if r := <-told; r.Service != "b" || r.Up != int64(len(hello)) || r.Down != r.Up+2 {
			t.Errorf("got %+v, want the record of the first connection", r)
		}
		eventually(t, equals("descriptors", func() int64 { return h.of("b").Descriptors.Taken }, 0))
	})
}

// exchangeAs sends a first message, and expects it back from a service.
func exchangeAs(t *testing.T, c net.Conn, hello, service string) {
	t.Helper()
	io.WriteString(c, hello)
	want := service + ":" + hello
	got := make([]byte, len(want))
	if err := readExactly(c, got); err != nil || string(got) != want {
		t.Fatalf("got %.40q, %v, want %q", got, err, service)
	}
}

// A peer that none of the services allows is reset at once.
func TestSNIRefusesPeersAtOnce(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		spec := Service{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		at := h.share(netip.AddrPort{}, tenant{name: "a", sni: []string{"a.example"}, spec: spec},
			tenant{name: "b", sni: []string{"b.example"}, spec: spec})
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		wantReset(t, err) // the reset may come before Dial returns
		eventually(t, equals("not allowed", func() int64 { return h.of("a").RefusedBy[RefusedNotAllowed] }, 1))
	})
}

// A PROXY header comes before the ClientHello, from the client and to the endpoint.
func TestSNIBetweenPROXYHeaders(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		hello := helloTo("db.example.com")
		spec := Service{AcceptProxy: anyLocal, SendProxy: proxyproto.V1}
		at := h.share(netip.AddrPort{}, tenant{name: "db", sni: []string{"db.example.com"}, spec: spec},
			tenant{name: "web", sni: []string{"web.example.com"}, spec: spec})
		header := string(proxyproto.AppendV1(nil, realClient, realServer))
		for _, pause := range []time.Duration{0, 20 * time.Millisecond} {
			c := dialTCP(t, at)
			io.WriteString(c, header)
			time.Sleep(pause)
			io.WriteString(c, hello)
			want := "db:" + header + hello
			got := make([]byte, len(want))
			if err := readExactly(c, got); err != nil || string(got) != want {
				t.Errorf("got %.40q, %v, want %q", got, err, want)
			}
			list, _, _ := h.Connections(t.Context(), ConnectionQuery{Limit: 10, Service: "db"})
			if len(list) == 0 || list[0].Client != realClient {
				t.Errorf("got %+v, want a connection of %s", list, realClient)
			}
		}
		servedBy(t, at, header+"GET / HTTP/1.1\r\n", "")
		eventually(t, equals("refused", func() int64 { return h.of("db").RefusedBy[RefusedNoRoute] }, 1))
	})
}

// A reload changes the routes without closing the listener. A client that is about to choose gets the new routes.
func TestSNIReload(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		hello := helloTo("a.example")
		a, b := tenant{name: "a", sni: []string{"a.example"}}, tenant{name: "b", sni: []string{"b.example"}}
		at := h.share(netip.AddrPort{}, a, b)
		open, halfA, halfC := dialTCP(t, at), dialTCP(t, at), dialTCP(t, at)
		exchangeAs(t, open, hello, "a")
		io.WriteString(halfA, hello[:100])
		half := helloTo("c.example")
		io.WriteString(halfC, half[:100])

		h.share(at, tenant{name: "b", sni: []string{"b.example", "a.example"}},
			tenant{name: "c", sni: []string{"c.example"}})
		exchange(t, open, "still there")
		rest := func(c net.Conn, whole, service string) {
			t.Helper()
			io.WriteString(c, whole[100:])
			got := make([]byte, len(service+":"+whole))
			if err := readExactly(c, got); err != nil || string(got) != service+":"+whole {
				t.Errorf("got %.40q, %v, want %q", got, err, service)
			}
		}
		rest(halfA, hello, "b")
		rest(halfC, half, "c")

		half = helloTo("nobody.example")
		late := dialTCP(t, at)
		io.WriteString(late, half[:100])
		h.share(at, tenant{name: "c"})
		rest(late, half, "c")
		servedBy(t, at, "no TLS at all", "c")
		exchange(t, open, "still there")
	})
}

// The names of services that share a listener must say which of them gets a client, and Lictor must not speak TLS.
func TestSNISettingsThatCannotBe(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		at := freePort(t, TCP)
		err := h.Apply([]Service{{Name: "a", Listen: listen(at), SNI: []string{"x.example"}},
			{Name: "b", Listen: listen(at), SNI: []string{"x.example"}}})
		if err == nil || !strings.Contains(err.Error(), `"a" and "b" share a listener and the name "x.example"`) {
			t.Errorf("got %v", err)
		}
		err = h.Apply([]Service{{Name: "a", Listen: listen(at)}, {Name: "b", Listen: listen(at)}})
		if err == nil || !strings.Contains(err.Error(), `both have no names`) {
			t.Errorf("got %v", err)
		}
		for _, s := range []Service{{AcceptTLS: &AcceptTLS{}}, {EndpointTLS: &EndpointTLS{}}} {
			s.Name, s.Listen, s.SNI = "a", listen(at), []string{"x.example"}
			if err = h.Apply([]Service{s}); err == nil || !strings.Contains(err.Error(), "passes TLS on as it is") {
				t.Errorf("got %v", err)
			}
		}
		if n := len(h.Listeners()); n != 0 {
			t.Errorf("got %d listeners, want none", n)
		}
	})
}

// A whole handshake of package crypto/tls passes, and nothing is decrypted on the way.
func TestSNIWithTLS(t *testing.T) {
	certificate := testCA().issue("db.example.com")
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		at := freePort(t, TCP)
		h.endpoints("db", tcpServer(t, func(c testConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
			io.Copy(s, s)
			s.Close()
		}))
		if err := h.Apply([]Service{{Name: "db", Listen: listen(at), SNI: []string{"db.example.com"}}}); err != nil {
			t.Fatal(err)
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := tls.Client(dialTCP(t, at), &tls.Config{ServerName: "db.example.com", RootCAs: testCA().pool,
				MaxVersion: version})
			text := bytes.Repeat([]byte("some text "), 20000)
			go c.Write(text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("version %x: %v", version, err)
			}
		}
	})
}
