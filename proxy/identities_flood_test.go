package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// A stalledConn reads nothing more once it has read so much.
type stalledConn struct {
	net.Conn
	after int
}

func (c *stalledConn) Read(b []byte) (int, error) {
	if c.after <= 0 {
		return 0, io.ErrNoProgress
	}
	n, err := c.Conn.Read(b[:min(len(b), c.after)])
	c.after -= n
	return n, err
}

// Clients that stop in the middle of their handshake, and a flood of clients that are denied, keep nobody from service.
func TestHandshakesOfOthersKeepNobodyFromService(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m := newMesh(t)
		m.set("denied")
		at := h.serve(Service{AcceptTLS: m.accept(0)}, tcpServer(t, echo))
		open := m.dial(at, "web")
		const slow = 100
		for range slow { // they have sent a ClientHello, and never show a certificate
			c := &stalledConn{dialTCP(t, at), 200}
			_ = tls.Client(c, m.as(m.server)).Handshake()
		}
		denied, stop := m.as(m.issue("denied")), make(chan struct{})
		var flood sync.WaitGroup
		for range 8 {
			flood.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.Dial("tcp", at.String())
					if err != nil {
						t.Error(err)
						return
					}
					s := tls.Client(c, denied)
					if b, err := io.ReadAll(s); err == nil || len(b) > 0 {
						t.Errorf("a client that is denied got %q, %v", b, err)
					}
					c.Close()
				}
			})
		}
		eventually(t, func() error {
			if h.stats().RefusedBy[RefusedIntention] < 20 {
				return errPending
			}
			return nil
		})
		for range 5 {
			m.dial(at, "billing").Close()
			exchange(t, open, "still there")
		}
		close(stop)
		flood.Wait()
		eventually(t, equals("connections", h.accepted, slow+1))
		h.wantIdentities("s", map[string]int{meshID("web"): 1})
	})
}

// Connections begin and end while what is allowed changes all the time. In the end, none is left that is denied.
func TestChangesWhileClientsComeAndGo(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m := newMesh(t)
		at := h.serve(Service{AcceptTLS: m.accept(0)}, tcpServer(t, echo))
		config, stop := m.as(m.issue("web")), make(chan struct{})
		config.ClientSessionCache = tls.NewLRUClientSessionCache(8) // resumed handshakes are shorter
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					c, err := tls.Dial("tcp", at.String(), config)
					if err != nil {
						continue // denied in the handshake
					}
					_, err = io.WriteString(c, "hello")
					if err == nil {
						_, err = io.ReadFull(c, make([]byte, 5))
					}
					if err == nil && (i+n)%2 == 0 {
						t.Cleanup(func() { c.Close() }) // stays until it is reset
						continue
					}
					c.Close()
				}
			})
		}
		for range 30 {
			m.set()
			h.Reexamine("s", m.judge)
			before := h.stats().Connections
			eventually(t, func() error {
				if h.stats().Connections < before+3 {
					return errPending
				}
				return nil
			})
			m.set("web")
			h.Reexamine("s", m.judge)
		}
		close(stop)
		clients.Wait()
		eventually(t, equals("connections", h.accepted, 0))
		h.wantIdentities("s", map[string]int{})
	})
}

// BenchmarkReexamine measures a change that denies nobody, with 5,000 live connections of 10 identities.
func BenchmarkReexamine(b *testing.B) {
	s := &service{}
	for i := range 5000 {
		u := &url.URL{Scheme: "spiffe", Host: "test", Path: fmt.Sprint("/ns/default/dc/dc1/svc/client-", i%10)}
		peer := &TLSPeer{Certificate: &x509.Certificate{URIs: []*url.URL{u}}}
		if _, err := s.identities.join(&identifiedClient{}, peer, 0); err != nil {
			b.Fatal(err)
		}
	}
	judged := 0
	b.ReportAllocs()
	for b.Loop() {
		s.identities.reexamine(func(p *TLSPeer) error {
			if judged++; p.Identity() == "" {
				return ErrForbidden
			}
			return nil
		}, func(string, []identifiedConn, error) { b.Fatal("denied") })
	}
	if judged != 10*b.N {
		b.Errorf("%d were judged, want %d", judged, 10*b.N)
	}
}
