package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// forEachVersion runs a test with each version of TLS on each engine.
func forEachVersion(t *testing.T, test func(t *testing.T, h *house, version uint16)) {
	for _, version := range tlsVersions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) { test(t, h, version) })
		})
	}
}

// dialTLS connects to addr, and shakes hands by config.
func dialTLS(t *testing.T, addr netip.AddrPort, config *tls.Config) *tlsConn {
	t.Helper()
	b := &eofConn{TCPConn: dialTCP(t, addr).(*net.TCPConn)}
	c := &tlsConn{Conn: tls.Client(b, config), bare: b}
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// tlsServer is tcpServer behind a handshake by config. A connection whose handshake fails is closed.
func tlsServer(t *testing.T, config *tls.Config, handle func(c testConn)) netip.AddrPort {
	return tcpServer(t, func(c testConn) {
		b := &eofConn{TCPConn: c.(*net.TCPConn)}
		s := &tlsConn{Conn: tls.Server(b, config), bare: b}
		if s.Handshake() == nil {
			handle(s)
			s.Close()
		}
	})
}

// readsAll hands out what it has read and how that ended.
func readsAll(got chan<- string) func(testConn) {
	return func(c testConn) {
		b, err := io.ReadAll(c)
		got <- fmt.Sprintf("%s, %v", b, err != nil)
	}
}

// A FIN without close_notify is a truncation, a RST behind a close_notify is none.
func TestTLSTruncation(t *testing.T) {
	for _, tt := range []struct {
		name, want, reason string
		end                func(c *tlsConn)
	}{
		{"close_notify", "hello, false", ReasonClientClosed, func(c *tlsConn) { c.Close() }},
		{"FIN", "hello, true", ReasonClientFailed, func(c *tlsConn) { c.bare.Close() }},
		{"half a record and FIN", "hello, true", ReasonClientFailed, func(c *tlsConn) {
			c.bare.Write([]byte{23, 3, 3, 0, 100, 1})
			c.bare.Close()
		}},
		{"RST", "hello, true", ReasonClientFailed, func(c *tlsConn) { c.SetLinger(0); c.bare.Close() }},
		{"close_notify and RST", "hello, false", ReasonClientClosed, func(c *tlsConn) {
			c.Conn.CloseWrite()
			io.ReadFull(c, make([]byte, 1)) // Lictor has read the close_notify
			c.SetLinger(0)
			c.bare.Close()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachVersion(t, func(t *testing.T, h *house, version uint16) {
				told, got := records(h), make(chan string, 1)
				at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(version))}, tcpServer(t, func(c testConn) {
					io.WriteString(c, "x")
					readsAll(got)(c)
					io.WriteString(c, "y")
				}))
				c := dialTLS(t, at, clientConfig(version))
				io.ReadFull(c, make([]byte, 1))
				io.WriteString(c, "hello")
				eventually(t, equals("bytes", func() int64 { return h.stats().BytesUp }, 5))
				tt.end(c)
				if s := <-got; s != tt.want {
					t.Errorf("the server got %q, want %q (bytes, failed)", s, tt.want)
				}
				if r := <-told; r.Reason != tt.reason || r.TLS == nil || r.TLS.Version != version {
					t.Errorf("got %+v, want %s and TLS", r, tt.reason)
				}
			})
		})
	}
}

// A server that ends without close_notify may not have said all, so its client does not see a proper end either.
func TestTLSTruncationByTheEndpoint(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		at := h.serve(Service{EndpointTLS: endpointTLS(clientConfig(version))},
			tlsServer(t, serverConfig(version), func(c testConn) {
				io.ReadFull(c, make([]byte, 1)) // before that, the client's dial may not have returned
				io.WriteString(c, "part")
				c.(*tlsConn).bare.CloseWrite()
				io.Copy(io.Discard, c)
			}))
		c := dialTCP(t, at)
		io.WriteString(c, "x")
		got, err := io.ReadAll(c)
		if string(got) != "part" || !isReset(err) {
			t.Errorf("got %q, %v, want the part and a reset", got, err)
		}
	})
}

// A peer that sends what is no TLS is told so by an alert, and the other side gets a reset.
func TestTLSBadRecord(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		got := make(chan string, 1)
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(version))}, tcpServer(t, readsAll(got)))
		c := dialTLS(t, at, clientConfig(version))
		io.WriteString(c, "hello")
		eventually(t, equals("bytes", func() int64 { return h.stats().BytesUp }, 5))
		c.bare.Write(append([]byte{23, 3, 3, 0, 100}, make([]byte, 100)...))
		_, err := io.ReadAll(c)
		if err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("the client got %v, want an alert", err)
		}
		if s := <-got; s != "hello, true" {
			t.Errorf("the server got %q, want hello and a reset", s)
		}
	})
}

// A client without a certificate that Lictor knows is told so. Its connection reaches no endpoint.
func TestTLSClientCertificates(t *testing.T) {
	stranger := newAuthority("stranger").issue("stranger")
	known := testCA().issue("known")
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		told := records(h)
		config := serverConfig(version)
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, testCA().pool
		at := h.serve(Service{AcceptTLS: acceptTLS(config)}, tcpServer(t, named("ok")))
		for _, cert := range []string{"", "stranger", "known"} {
			mine := clientConfig(version)
			mine.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				switch cert {
				case "known":
					return &known, nil
				case "stranger":
					return &stranger, nil
				}
				return &tls.Certificate{}, nil
			}
			c := tls.Client(dialTCP(t, at), mine)
			b, err := io.ReadAll(c)
			c.Close()
			r := <-told
			if cert == "known" {
				if err != nil || string(b) != "ok" || r.TLS == nil || r.TLS.Certificate == nil ||
					!r.TLS.Certificate.Equal(known.Leaf) {
					t.Errorf("%q: got %q, %v, and %+v, want ok and the certificate in the record", cert, b, err, r)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), "remote error") {
				t.Errorf("%q: the client got %v, want an alert", cert, err)
			}
			if r.Refused != RefusedHandshake.String() {
				t.Errorf("%q: got %+v, want a refusal because of the handshake", cert, r)
			}
		}
	})
}

// A client that does not shake hands is refused, unless it has sent nothing.
func TestTLSClientsWithoutHandshake(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		close      bool
		refused    int64
	}{
		{"nothing", "", true, 0},
		{"nothing for too long", "", false, 1},
		{"garbage", "garbage that is no TLS at all\n", false, 1},
		{"HTTP", "GET / HTTP/1.1\r\nHost: s\r\n\r\n", false, 1},
		{"half a record", "\x16\x03\x01\x02\x00\x01", false, 1},
		{"half a record and an end", "\x16\x03\x01\x02\x00\x01", true, 1},
		{"a record that is too large", "\x16\x03\x01\xff\xff\x01", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				told := records(h)
				accept := acceptTLS(serverConfig(0))
				accept.Timeout = 200 * time.Millisecond
				if tt.close {
					accept.Timeout = time.Minute
				}
				at := h.serve(Service{AcceptTLS: accept}, tcpServer(t, named("never")))
				c := dialTCP(t, at)
				io.WriteString(c, tt.send)
				if tt.close {
					c.CloseWrite()
				}
				if b, _ := io.ReadAll(c); bytes.Contains(b, []byte("never")) {
					t.Errorf("got %q of the endpoint", b)
				}
				c.Close()
				r := <-told
				if n := h.stats().RefusedBy[RefusedHandshake]; n != tt.refused {
					t.Errorf("%d clients were refused, want %d: %+v", n, tt.refused, r)
				}
			})
		})
	}
}

// A piecemeal sends each write byte by byte.
type piecemeal struct{ *net.TCPConn }

func (c piecemeal) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.TCPConn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestTLSByteByByte(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(version))}, tcpServer(t, echo))
		c := tls.Client(piecemeal{dialTCP(t, at).(*net.TCPConn)}, clientConfig(version))
		defer c.Close()
		exchange(t, c, "byte by byte")
	})
}

// An endpoint whose handshake fails was not reached: the client gets the next endpoint.
func TestTLSEndpointsWithoutHandshake(t *testing.T) {
	stranger := serverConfig(0)
	stranger.Certificates = []tls.Certificate{newAuthority("stranger").issue("lictor.test")}
	otherName := serverConfig(0)
	otherName.Certificates = []tls.Certificate{testCA().issue("other.test")}
	for _, tt := range []struct {
		name string
		bad  func(t *testing.T) netip.AddrPort
	}{
		{"unknown authority", func(t *testing.T) netip.AddrPort { return tlsServer(t, stranger, named("bad")) }},
		{"other name", func(t *testing.T) netip.AddrPort { return tlsServer(t, otherName, named("bad")) }},
		{"no TLS", func(t *testing.T) netip.AddrPort { return tcpServer(t, named("bad, this is no TLS")) }},
		{"silent", func(t *testing.T) netip.AddrPort {
			return tcpServer(t, func(c testConn) { io.Copy(io.Discard, c) })
		}},
		{"closes", func(t *testing.T) netip.AddrPort { return tcpServer(t, func(testConn) {}) }},
		{"resets", func(t *testing.T) netip.AddrPort {
			return tcpServer(t, func(c testConn) {
				io.ReadFull(c, make([]byte, 1)) // a reset before could fail the dial already
				c.SetLinger(0)
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				timeout := 20 * time.Second
				if tt.name == "silent" {
					timeout = time.Second
				}
				at := h.serve(Service{ConnectTimeout: timeout, EndpointTLS: endpointTLS(clientConfig(0))}, tt.bad(t),
					tlsServer(t, serverConfig(0), named("good")))
				for range 2 {
					if got := ask(t, at); got != "good" {
						t.Errorf("got %q, want good", got)
					}
				}
				s := h.stats()
				if s.Refused != 0 || s.DialsFailed == 0 || s.DialsFailedBy[lb.Handshake] != s.DialsFailed {
					t.Errorf("got %+v, want failed handshakes, and no client refused", s)
				}
			})
		})
	}
}

// Sessions are resumed at both ends.
func TestTLSResumption(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		told := records(h)
		var resumed atomic.Int64
		server := tlsServer(t, serverConfig(version), func(c testConn) {
			if c.(*tlsConn).ConnectionState().DidResume {
				resumed.Add(1)
			}
			echo(c)
		})
		out, mine := clientConfig(version), clientConfig(version)
		out.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		mine.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(version)), EndpointTLS: endpointTLS(out)}, server)
		for i := range 3 {
			c := dialTLS(t, at, mine)
			exchange(t, c, "hello")
			c.Close()
			if r := <-told; r.TLS == nil || r.TLS.Resumed != (i > 0) {
				t.Errorf("connection %d: got %+v, want it resumed: %v", i, r.TLS, i > 0)
			}
		}
		if n := resumed.Load(); n != 2 {
			t.Errorf("%d sessions with the endpoint were resumed, want 2", n)
		}
	})
}

// A new AcceptTLS is for new clients only.
func TestTLSReload(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, echo)
		s := Service{AcceptTLS: acceptTLS(serverConfig(0)), Listen: []netip.AddrPort{freePort(t, TCP)}}
		at := h.serve(s, server)
		old := dialTLS(t, at, clientConfig(0))
		exchange(t, old, "hello")
		other := newAuthority("other")
		config := serverConfig(0)
		config.Certificates = []tls.Certificate{other.issue("lictor.test")}
		s.AcceptTLS = acceptTLS(config)
		h.serve(s, server)
		exchange(t, old, "hello again")
		trusting := clientConfig(0)
		trusting.RootCAs = other.pool
		exchange(t, dialTLS(t, at, trusting), "hello")
		s.AcceptTLS = nil
		h.serve(s, server)
		exchange(t, old, "hello again")
		exchange(t, dialTCP(t, at), "hello")
	})
}

// A certificate that is swapped again and again costs no client its connection.
func TestTLSCertificateIsSwappedUnderLoad(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var current atomic.Pointer[tls.Config]
		current.Store(serverConfig(0))
		at := h.serve(Service{AcceptTLS: &AcceptTLS{Timeout: time.Minute, Config: current.Load}}, tcpServer(t, echo))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		var served atomic.Int64
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c := tls.Client(dialTCP(t, at), clientConfig(0))
					got := make([]byte, 5)
					_, err := io.WriteString(c, "hello")
					if err == nil {
						_, err = io.ReadFull(c, got)
					}
					if c.Close(); err != nil {
						t.Error(err)
						return
					}
					served.Add(1)
				}
			})
		}
		for range 100 {
			next := serverConfig(0)
			next.Certificates = []tls.Certificate{testCA().issue("lictor.test")}
			current.Store(next)
			before := served.Load()
			eventually(t, func() error {
				if served.Load() == before && !t.Failed() {
					return errPending
				}
				return nil
			})
		}
		close(stop)
		wg.Wait()
	})
}

// A peer that sends and never reads is stopped, and does not hold its connection for ever.
func TestTLSPeerThatNeverReads(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		at := h.serve(Service{IdleTimeout: 300 * time.Millisecond, AcceptTLS: acceptTLS(serverConfig(version))},
			tcpServer(t, echo))
		c := dialTLS(t, at, clientConfig(version))
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// Open connections are listed with what their handshake has shown, and clients that shake hands as such.
func TestTLSConnectionsAreListed(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, echo))
		dialTCP(t, at)
		exchange(t, dialTLS(t, at, clientConfig(0)), "hello")
		eventually(t, func() error {
			list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10})
			shaking, open := 0, 0
			for _, c := range list {
				switch {
				case c.State == ConnectionGreeting && c.TLS == nil:
					shaking++
				case c.State == ConnectionOpen && c.TLS != nil && c.TLS.ServerName == "lictor.test" && c.Up == 5:
					open++
				}
			}
			if err == nil && (shaking != 1 || open != 1) {
				err = fmt.Errorf("got %+v, want an open connection and one that shakes hands", list)
			}
			return err
		})
	})
}
