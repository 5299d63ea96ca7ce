package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/lb"
)

// A mesh has the certificates of a test's services, and says which of them may use the service under test.
type mesh struct {
	*testing.T
	ca      *testcert.Authority
	server  tls.Certificate
	mu      sync.Mutex
	denied  map[string]bool // by name
	waits   chan struct{}   // unless it is nil, each handshake waits for an element after it was admitted
	waiting chan struct{}
	judged  atomic.Int64
}

func newMesh(t *testing.T) *mesh {
	m := &mesh{T: t, ca: testcert.NewAuthority(t, "mesh"), denied: map[string]bool{}}
	m.server = m.issue("server")
	return m
}

func meshID(name string) string { return "spiffe://test/ns/default/dc/dc1/svc/" + name }

func (m *mesh) issue(name string) tls.Certificate {
	return m.ca.Issue(m, testcert.Request{CommonName: name, Names: []string{"lictor.test"},
		URIs: []string{meshID(name)}}).TLS(m)
}

// set says which services are denied from now on.
func (m *mesh) set(denied ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.denied = map[string]bool{}
	for _, name := range denied {
		m.denied[meshID(name)] = true
	}
}

// admit is what VerifyConnection and Reexamine ask.
func (m *mesh) admit(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.denied[id] {
		return fmt.Errorf("%w: intention %s -> s (deny)", ErrForbidden, id)
	}
	return nil
}

func (m *mesh) judge(p *TLSPeer) error {
	m.judged.Add(1)
	return m.admit(p.Identity())
}

func (m *mesh) accept(version uint16) *AcceptTLS {
	config := &tls.Config{Certificates: []tls.Certificate{m.server}, MinVersion: version, MaxVersion: version,
		ClientAuth: tls.RequireAnyClientCert}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		cert := state.PeerCertificates[0]
		_, err := cert.Verify(x509.VerifyOptions{Roots: m.ca.Pool(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err == nil {
			err = m.admit((&TLSPeer{Certificate: cert}).Identity())
		}
		if err == nil && m.waits != nil {
			m.waiting <- struct{}{}
			<-m.waits
		}
		return err
	}
	return &AcceptTLS{Config: func() *tls.Config { return config }, Timeout: time.Minute}
}

// as returns the configuration of a client with a certificate.
func (m *mesh) as(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: m.ca.Pool(), ServerName: "lictor.test"}
}

// dial connects as a service, and exchanges a text.
func (m *mesh) dial(at netip.AddrPort, name string) *tlsConn {
	m.Helper()
	c := dialTLS(m.T, at, m.as(m.issue(name)))
	exchange(m.T, c, "hello from "+name)
	return c
}

// wantEnd checks that a connection ends by a reset, and soon: its deadline is half a minute away.
func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	wantReset(t, err)
}

// A client that has proved who it is and may not use the service is told so by an alert, and its record says who it is.
func TestClientIsForbidden(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		m, next := newMesh(t), h.records()
		m.set("web")
		at := h.serve(Service{AcceptTLS: m.accept(version)}, tcpServer(t, echo))
		c := tls.Client(dialTCP(t, at), m.as(m.issue("web")))
		_, err := c.Read(make([]byte, 1))
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: bad certificate") {
			t.Errorf("the client got %v, want an alert", err)
		}
		r := next()
		if r.Reason != ReasonIntention || r.Refused != "intention" || r.Endpoint.ID != "" || r.TLS == nil ||
			r.TLS.Identity() != meshID("web") || !errors.Is(r.Err, ErrForbidden) ||
			!strings.Contains(r.Err.Error(), "intention "+meshID("web")+" -> s (deny)") {
			t.Errorf("got the record %+v with %+v", r, r.TLS)
		}
		if s := h.stats(); s.Refused != 1 || s.RefusedBy[RefusedIntention] != 1 || s.EndedIntention != 0 {
			t.Errorf("got %+v, want one client refused by an intention", s)
		}
		m.dial(at, "billing")
	})
}

// A client that only claims to be of the mesh is not recorded as who it claims to be.
func TestForgedIdentityIsNotRecorded(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m, other, next := newMesh(t), newMesh(t), h.records()
		at := h.serve(Service{AcceptTLS: m.accept(0)}, tcpServer(t, echo))
		c := tls.Client(dialTCP(t, at), &tls.Config{Certificates: []tls.Certificate{other.issue("web")},
			RootCAs: m.ca.Pool(), ServerName: "lictor.test"})
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the client was served")
		}
		if r := next(); r.Refused != "handshake" || r.TLS != nil {
			t.Errorf("got %+v with %+v, want nothing of TLS", r, r.TLS)
		}
	})
}

// Connections whose client may not use the service any more are reset, whatever they are doing. Others go on.
func TestReexamine(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		m, next, held := newMesh(t), h.records(), make(chan struct{})
		at := h.serve(Service{AcceptTLS: m.accept(version)}, tcpServer(t, func(c testConn) {
			echo(c) // until the client ends its side
			<-held
		}))
		idle, half, busy := m.dial(at, "web"), m.dial(at, "web"), m.dial(at, "web")
		other := m.dial(at, "billing")
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10})
			for _, c := range list {
				if c.State == ConnectionHalfClosed {
					return err
				}
			}
			return errPending
		})
		stuck := make(chan error, 1)
		go func() { // it reads nothing, so bytes wait at each place where they can
			for {
				if _, err := busy.Write(make([]byte, 64<<10)); err != nil {
					stuck <- err
					return
				}
			}
		}()
		eventually(t, func() error {
			if h.stats().BytesUp < 256<<10 {
				return errPending
			}
			return nil
		})
		if n := h.Reexamine("s", m.judge); n != 0 || m.judged.Load() != 2 {
			t.Errorf("%d connections ended, %d were judged, want 0 and 2", n, m.judged.Load())
		}
		m.set("web")
		if n := h.Reexamine("none", m.judge) + h.Reexamine("s", m.judge); n != 3 || m.judged.Load() != 4 {
			t.Errorf("%d connections ended, %d were judged, want 3 and 4", n, m.judged.Load())
		}
		wantEnd(t, idle)
		if err := <-stuck; !isReset(err) {
			t.Errorf("got %v, want a reset", err)
		}
		for range 3 {
			if r := next(); r.Reason != ReasonIntention || r.Refused != "" || r.TLS.Identity() != meshID("web") ||
				!errors.Is(r.Err, ErrForbidden) || r.Endpoint.ID == "" {
				t.Errorf("got the record %+v with %+v", r, r.TLS)
			}
		}
		close(held)
		exchange(t, other, "still there")
		if s := h.stats(); s.EndedIntention != 3 || s.ConnectionsActive != 1 || s.Refused != 0 {
			t.Errorf("got %+v, want 3 connections ended", s)
		}
		h.wantIdentities("s", map[string]int{meshID("billing"): 1})
		other.Close()
		eventually(t, equals("connections", h.accepted, 0))
		h.wantIdentities("s", map[string]int{})
	})
}

// wantIdentities checks which connections the index has.
func (h *house) wantIdentities(service string, want map[string]int) {
	h.Helper()
	x := &h.services[service].identities
	x.mu.Lock()
	defer x.mu.Unlock()
	got := map[string]int{}
	for id, i := range x.all {
		got[id] = len(i.conns)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.Errorf("got the identities %v, want %v", got, want)
	}
}

// A client that waits for an endpoint, in the queue or in a dial, is reset too.
func TestReexamineClientWithoutEndpoint(t *testing.T) {
	for _, queued := range []bool{true, false} {
		forEachEngine(t, func(t *testing.T, h *house) {
			m, next := newMesh(t), h.records()
			endpoint, state := stuckPort(t), ConnectionConnecting
			if queued {
				h.balancer.Configure("s", lb.Options{MaxQueue: 10, QueueTimeout: time.Hour, EmptyWait: time.Hour})
				state = ConnectionWaiting
			}
			at := h.serve(Service{AcceptTLS: m.accept(0), ConnectTimeout: time.Hour}, endpoint)
			if queued {
				h.endpoints("s")
			}
			c := dialTLS(t, at, m.as(m.issue("web")))
			awaitState(t, h, state)
			m.set("web")
			if n := h.Reexamine("s", m.judge); n != 1 {
				t.Errorf("%d connections ended, want 1", n)
			}
			wantEnd(t, c)
			if r := next(); r.Reason != ReasonIntention || r.Endpoint.ID != "" || !errors.Is(r.Err, ErrForbidden) {
				t.Errorf("got the record %+v", r)
			}
			eventually(t, equals("connections", h.accepted, 0))
			h.wantIdentities("s", map[string]int{})
		})
	}
}

// A handshake that was admitted before a change, and ends after it, does not get past the change.
func TestChangeDuringAHandshake(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		m, next := newMesh(t), h.records()
		m.waits, m.waiting = make(chan struct{}), make(chan struct{})
		at := h.serve(Service{AcceptTLS: m.accept(version)}, tcpServer(t, echo))
		c := tls.Client(dialTCP(t, at), m.as(m.issue("web")))
		shaken := make(chan error, 1)
		go func() { shaken <- c.Handshake() }()
		<-m.waiting
		m.set("web")
		if n := h.Reexamine("s", m.judge); n != 0 {
			t.Errorf("%d connections ended, want none", n)
		}
		close(m.waits)
		if err := <-shaken; err == nil {
			wantEnd(t, c.NetConn())
		}
		if r := next(); r.Reason != ReasonIntention || r.Refused != "intention" || r.TLS.Identity() != meshID("web") ||
			!errors.Is(r.Err, ErrForbidden) {
			t.Errorf("got the record %+v with %+v", r, r.TLS)
		}
		h.wantIdentities("s", map[string]int{})
	})
}

// The connections of a listener that another process has taken over, and of a service that was removed, are judged too.
func TestReexamineConnectionsThatFinish(t *testing.T) {
	for _, how := range []string{"handed over", "removed"} {
		t.Run(how, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				m := newMesh(t)
				at := h.serve(Service{AcceptTLS: m.accept(0)}, tcpServer(t, echo))
				web, other := m.dial(at, "web"), m.dial(at, "billing")
				if how == "removed" {
					if err := h.Apply(nil); err != nil {
						t.Fatal(err)
					}
				} else {
					h.Release()
				}
				m.set("web")
				if n := h.Reexamine("s", m.judge); n != 1 {
					t.Errorf("%d connections ended, want 1", n)
				}
				wantEnd(t, web)
				exchange(t, other, "still there")
				other.Close()
				for _, s := range h.byName.find("s") {
					eventually(t, func() error {
						if taken, _ := s.share.load(); taken > 0 {
							return errPending
						}
						return nil
					})
				}
				if h.Apply(nil) == nil && len(h.byName.find("s")) != 0 {
					t.Error("a service without connections is still found")
				}
			})
		})
	}
}

// Each identity has its own limit of connections, together with those that it has in other processes.
func TestEachIdentityHasSoManyConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m, next := newMesh(t), h.records()
		server := tcpServer(t, echo)
		s := Service{AcceptTLS: m.accept(0), MaxPerIdentity: 2, Listen: []netip.AddrPort{freePort(t, TCP)}}
		at := h.serve(s, server)
		first, second := m.dial(at, "web"), m.dial(at, "web")
		over := dialTLS(t, at, m.as(m.issue("web")))
		wantEnd(t, over)
		if r := next(); r.Reason != ReasonPerIdentity || r.Refused != "per_identity" || r.Endpoint.ID != "" ||
			r.TLS.Identity() != meshID("web") {
			t.Errorf("got the record %+v with %+v", r, r.TLS)
		}
		m.dial(at, "billing")
		key := ClientKey{Identity: meshID("web")}
		count := func() int { return h.ClientCounts()["s"][key] }
		if got := h.ClientCounts()["s"]; len(got) != 2 || got[key] != 2 {
			t.Errorf("got the counts %v", got)
		}
		first.Close()
		eventually(t, equals("connections of web", count, 1))
		first = m.dial(at, "web")
		h.SetForeignClients("s", map[ClientKey]int{key: 1})
		second.Close()
		eventually(t, equals("connections of web", count, 1))
		wantEnd(t, dialTLS(t, at, m.as(m.issue("web"))))
		eventually(t, equals("refused", func() int64 { return h.stats().RefusedBy[RefusedPerIdentity] }, 2))
		m.set("web") // a connection that was denied counts no more
		h.Reexamine("s", m.judge)
		wantEnd(t, first)
		h.Close()
		h.wantNoClients()
	})
}

// An endpoint gets the identity of a client that has one in its PROXY header.
func TestIdentityInTheProxyHeader(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m, got := newMesh(t), make(chan string, 1)
		a := m.accept(0)
		a.Plain = true
		at := h.serve(Service{AcceptTLS: a, SendProxy: proxyproto.V2}, tcpServer(t, func(c testConn) {
			header, err := parseHeader(c)
			if err != nil {
				t.Error(err)
			}
			id := "none"
			for typ, value := range header.TLVs.All() {
				if typ == proxyproto.Identity {
					id = string(value)
				}
			}
			got <- id
			echo(c)
		}))
		m.dial(at, "web")
		if id := <-got; id != meshID("web") {
			t.Errorf("the endpoint got the identity %q", id)
		}
		exchange(t, dialTCP(t, at), "in plain text")
		if id := <-got; id != "none" {
			t.Errorf("for a client in plain text, the endpoint got the identity %q", id)
		}
	})
}
