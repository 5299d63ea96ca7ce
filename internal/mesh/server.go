package mesh

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maxKnown limits how many certificates of clients a Server remembers as verified.
const maxKnown = 1024

// ServerOptions configure a Server.
type ServerOptions struct {
	// Admit decides whether a client that has been verified is served. It is called in each handshake, also in those
	// that resume a session, by any goroutine. An error ends the handshake, whose error is the same value. A nil Admit
	// admits all services of the mesh.
	Admit func(Client) error
}

// A Server has the configurations of TLS for clients of the mesh. It shows them the certificate of its identity. Its
// methods are safe for concurrent use.
//
// A client must show a certificate that leads to the authorities of this datacenter, is for clients and is valid now.
// It must be of a service of the Server's trust domain and partition, in any datacenter, and of nothing else. All this
// is verified again when a session is resumed.
type Server struct {
	identity *identity
	admit    func(Client) error
	notReady *tls.Config
	served   atomic.Pointer[served] // what Config returned last; nil: nothing that was ready

	mu    sync.Mutex // guards the following fields
	known map[[sha256.Size]byte]provenClient
}

// served is a configuration with what it was made from.
type served struct {
	from   *current
	config *tls.Config
}

// A provenClient is a client whose certificate has been verified.
type provenClient struct {
	trusted
	client Client
}

// Server returns a Server that shows clients the certificate of the identity. Each listener needs a Server of its own,
// because a session may be resumed at all listeners of a Server. The Server works after Close of the identity, but its
// certificate is not renewed then.
func (i *Identity) Server(o ServerOptions) *Server {
	s := &Server{identity: i.identity, admit: o.Admit, known: map[[sha256.Size]byte]provenClient{}}
	s.notReady = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if s.isReady(s.identity.current.Load()) { // just now
			c := s.newConfig(s.identity.current.Load())
			c.SessionTicketsDisabled = true // its keys would be those of notReady, which is in use again and again
			return c, nil
		}
		return nil, s.identity.store.notReady(s.identity)
	}}
	return s
}

// Config returns the configuration for the next handshake with a client. It returns the same one until the certificate
// or the authorities change: sessions end with it. Config does not wait for Consul. While there is no certificate that
// is valid, or no authority, handshakes with the result fail with an error that wraps ErrNotReady. The result is never
// nil, and must not be changed.
func (s *Server) Config() *tls.Config {
	c := s.identity.current.Load()
	if !s.isReady(c) {
		return s.notReady
	}
	if made := s.served.Load(); made != nil && made.from == c {
		return made.config
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if made := s.served.Load(); made != nil && made.from == c {
		return made.config
	}
	made := &served{c, s.newConfig(c)}
	s.served.Store(made)
	return made.config
}

// isReady reports whether handshakes can use c.
func (s *Server) isReady(c *current) bool { return c != nil && !time.Now().After(c.leaf.to) }

// newConfig returns a configuration with the certificate of c, and keys of its own for sessions.
func (s *Server) newConfig(c *current) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.leaf.pair}, MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true,
		ClientAuth:       tls.RequireAnyClientCert, // VerifyConnection verifies it, in resumed sessions too
		VerifyConnection: s.verify,
	}
}

// verify is for tls.Config.VerifyConnection. It uses the authorities of now, also for a handshake that began before.
func (s *Server) verify(state tls.ConnectionState) error {
	client, err := s.prove(state.PeerCertificates, s.identity.current.Load(), time.Now())
	if err != nil || s.admit == nil {
		return err
	}
	return s.admit(client)
}

// prove returns the client that chain proves. A certificate that has been verified is not verified again.
func (s *Server) prove(chain []*x509.Certificate, c *current, now time.Time) (Client, error) {
	var sum [sha256.Size]byte
	if len(chain) > 0 {
		sum = sha256.Sum256(chain[0].Raw)
		s.mu.Lock()
		k, is := s.known[sum]
		s.mu.Unlock()
		if is && k.holds(c.roots, now) {
			return k.client, nil
		}
	}
	t, err := asClient.verify(chain, c.roots, now)
	if err != nil {
		return Client{}, err
	}
	client, err := ClientOf(chain[0])
	if err != nil {
		return Client{}, unverified(chain, err)
	}
	if client.TrustDomain != c.roots.domain || client.Partition != c.leaf.partition {
		return Client{}, unverified(chain, fmt.Errorf("the client proves to be %q, which is not in partition %q of "+
			"trust domain %s", client.URI, c.leaf.partition, c.roots.domain))
	}
	s.remember(sum, provenClient{t, client})
	return client, nil
}

// remember notes that a certificate has been verified.
func (s *Server) remember(sum [sha256.Size]byte, k provenClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.known { // any one: it is verified again when it comes again
		if len(s.known) < maxKnown {
			break
		}
		delete(s.known, other)
	}
	s.known[sum] = k
}
