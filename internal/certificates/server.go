package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"sync/atomic"
)

// A Pair names the files of a certificate and its key, in PEM format. The certificate's file also has the intermediate
// certificates.
type Pair struct{ CertFile, KeyFile string }

// ServerOptions say how a Server speaks TLS with clients.
type ServerOptions struct {
	// Service is the service of the Server, for reports.
	Service string

	// Certificates are the certificates for clients; at least one. A client gets the first one with the name that it
	// asks for, or else the first one with a wildcard for that name, or else the first one.
	Certificates []Pair

	// ClientCAFile is the file of the authorities of client certificates, which clients must then have. If it is empty,
	// clients need none.
	ClientCAFile string

	// MinVersion is the lowest version of TLS, such as tls.VersionTLS12.
	MinVersion uint16

	// ALPN are the protocols that clients may choose from, the best first. If it is empty, no protocol is negotiated.
	ALPN []string
}

// A Server has the TLS configuration for the clients of a service.
type Server struct {
	store *Store
	user  *user
	o     ServerOptions
	pairs []*material
	ca    *material // nil: clients need no certificates

	served atomic.Pointer[served]
	config atomic.Pointer[tls.Config]
}

// served are the certificates of a Server by the names that they are for, in lower case.
type served struct {
	byName map[string][]*tls.Certificate
	first  *tls.Certificate
}

// Server reads the files that o names, and returns a Server that uses them. The caller must call Close.
func (s *Store) Server(o ServerOptions) (*Server, error) {
	v := &Server{store: s, o: o}
	v.user = &user{service: o.Service, changed: v.update}
	if err := v.open(); err != nil {
		v.Close()
		return nil, err
	}
	s.mu.Lock() // no change is missed
	defer s.mu.Unlock()
	v.update()
	return v, nil
}

func (v *Server) open() error {
	for _, p := range v.o.Certificates {
		m, err := v.store.use(files{cert: p.CertFile, key: p.KeyFile}, v.user)
		if err != nil {
			return err
		}
		v.pairs = append(v.pairs, m)
	}
	if v.o.ClientCAFile == "" {
		return nil
	}
	var err error
	v.ca, err = v.store.use(files{roots: v.o.ClientCAFile}, v.user)
	return err
}

// Close makes the Store forget the Server. Its last Config can still be used.
func (v *Server) Close() { v.store.drop(v.user) }

// Config returns the configuration for the next handshake. It is the same one until the authorities of client
// certificates change: the tickets of a tls.Config are of no use with another one, so nobody gets in by a ticket that
// an earlier authority has made possible. Config never blocks. The result must not be changed.
func (v *Server) Config() *tls.Config { return v.config.Load() }

// update uses the current content of the files. The caller must hold Store.mu.
func (v *Server) update() {
	if v.pairs == nil {
		return // the Server is not open yet
	}
	now := &served{byName: map[string][]*tls.Certificate{}, first: v.pairs[0].content.Load().pair}
	for _, m := range v.pairs {
		pair := m.content.Load().pair
		for _, name := range namesOf(pair.Leaf) {
			name = strings.ToLower(name)
			now.byName[name] = append(now.byName[name], pair)
		}
	}
	v.served.Store(now)
	var roots *x509.CertPool
	if v.ca != nil {
		roots = v.ca.content.Load().roots
	}
	if c := v.config.Load(); c == nil || c.ClientCAs != roots {
		v.config.Store(v.newConfig(roots))
	}
}

// newConfig returns a configuration for clients with certificates of roots, which may be nil.
func (v *Server) newConfig(roots *x509.CertPool) *tls.Config {
	c := &tls.Config{
		GetCertificate: v.certificate, MinVersion: v.o.MinVersion, NextProtos: v.o.ALPN,
		DynamicRecordSizingDisabled: true,
	}
	if roots == nil {
		return c
	}
	c.ClientCAs, c.ClientAuth = roots, tls.RequireAndVerifyClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume {
			return nil // crypto/tls has verified the certificate
		}
		return verify(state.PeerCertificates, x509.VerifyOptions{Roots: roots,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	return c
}

// certificate returns the certificate for a client.
func (v *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := v.served.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	some := now.byName[name]
	if _, parent, found := strings.Cut(name, "."); found && some == nil {
		some = now.byName["*."+parent]
	}
	for _, pair := range some { // several of one name may differ in their keys
		if len(some) == 1 || hello.SupportsCertificate(pair) == nil {
			return pair, nil
		}
	}
	if len(some) > 0 {
		return some[0], nil
	}
	return now.first, nil
}

// namesOf returns the host names that a certificate is for.
func namesOf(leaf *x509.Certificate) []string {
	if len(leaf.DNSNames) == 0 && leaf.Subject.CommonName != "" {
		return []string{leaf.Subject.CommonName} // clients that still accept that ask for it
	}
	return leaf.DNSNames
}

// certificatesIn returns the certificates in a text in PEM format. What is no certificate is skipped, as
// x509.CertPool.AppendCertsFromPEM does.
func certificatesIn(text []byte) (all []*x509.Certificate) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return all
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(b.Bytes); err == nil {
			all = append(all, cert)
		}
	}
}
