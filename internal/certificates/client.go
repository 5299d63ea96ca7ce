package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"sync/atomic"
)

// ClientOptions say how a Client speaks TLS with the endpoints of a service.
type ClientOptions struct {
	// Service is the service of the Client, for reports.
	Service string

	// Options name the files, and say how endpoints are verified.
	Options Options

	// MinVersion is the lowest version of TLS, such as tls.VersionTLS12.
	MinVersion uint16

	// ALPN are the protocols that are offered to endpoints, the best first. If it is empty, none are.
	ALPN []string
}

// A Client has the TLS configurations for the endpoints of a service.
type Client struct {
	store *Store
	user  *user
	o     ClientOptions
	roots *material // nil: the system's
	own   *material // nil: no client certificate

	peers atomic.Pointer[peers]
}

// maxPeers limits how many endpoints a Client keeps sessions for.
const maxPeers = 4096

// peers are the configurations for endpoints, as long as the files stay the same. Each endpoint has a cache of sessions
// of its own: a session tells the endpoint who resumes it, and says that the endpoint was verified.
type peers struct {
	o     *ClientOptions
	roots *x509.CertPool
	own   *tls.Certificate

	mu  sync.Mutex
	all map[peer]*tls.Config // guarded by mu
}

// A peer is an endpoint at an address, with the name that its certificate must have.
type peer struct{ address, name string }

// Client reads the files that o names, and returns a Client that uses them. The caller must call Close.
func (s *Store) Client(o ClientOptions) (*Client, error) {
	c := &Client{store: s, o: o}
	c.user = &user{service: o.Service, changed: c.update}
	if err := c.open(); err != nil {
		c.Close()
		return nil, err
	}
	s.mu.Lock() // no change is missed
	defer s.mu.Unlock()
	c.update()
	return c, nil
}

func (c *Client) open() (err error) {
	o := c.o.Options
	if roots := o.rootsPath(); roots != "" {
		if c.roots, err = c.store.use(files{roots: roots}, c.user); err != nil {
			return err
		}
	}
	if o.CertFile != "" || o.KeyFile != "" {
		c.own, err = c.store.use(files{cert: o.CertFile, key: o.KeyFile}, c.user)
	}
	return err
}

// Close makes the Store forget the Client. Its last configurations can still be used.
func (c *Client) Close() { c.store.drop(c.user) }

// update uses the current content of the files. Sessions that were made with the former content are not resumed.
func (c *Client) update() {
	p := &peers{o: &c.o, own: &tls.Certificate{}, all: map[peer]*tls.Config{}}
	if c.roots != nil {
		p.roots = c.roots.content.Load().roots
	}
	if c.own != nil {
		p.own = c.own.content.Load().pair
	}
	c.peers.Store(p)
}

// Config returns the configuration for the next handshake with the endpoint at address. Unless Options.ServerName says
// otherwise, the endpoint's certificate must be for name, a host name or an IP address. Config returns the same
// configuration until the files change, so that sessions can be resumed. Config never waits for a file. The result must
// not be changed.
func (c *Client) Config(address, name string) *tls.Config {
	if own := c.o.Options.ServerName; own != "" {
		name = own
	}
	return c.peers.Load().config(peer{address, name})
}

func (p *peers) config(of peer) *tls.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.all[of]; c != nil {
		return c
	}
	for other := range p.all { // any one: the sessions of endpoints that are in use come back soon
		if len(p.all) < maxPeers {
			break
		}
		delete(p.all, other)
	}
	c := p.newConfig(of.name)
	p.all[of] = c
	return c
}

// newConfig returns a configuration for an endpoint whose certificate must be for name.
func (p *peers) newConfig(name string) *tls.Config {
	c := &tls.Config{
		ServerName: name, RootCAs: p.roots, MinVersion: p.o.MinVersion, NextProtos: p.o.ALPN,
		InsecureSkipVerify: p.o.Options.InsecureSkipVerify, DynamicRecordSizingDisabled: true,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // all sessions of a Config have the same key
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return p.own, nil
		},
	}
	if !c.InsecureSkipVerify {
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if !state.DidResume {
				return nil // crypto/tls has verified the certificate
			}
			return verify(state.PeerCertificates, x509.VerifyOptions{Roots: p.roots, DNSName: name})
		}
	}
	return c
}
