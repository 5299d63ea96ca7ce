package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// An AcceptTLS says how TLS is spoken with the clients of a service. A handshake runs outside of the event loops.
//
// Two specifications of a service have the same AcceptTLS only if it is the same pointer. So whoever makes an AcceptTLS
// keeps it while nothing changes. If it changes, only new clients are affected.
type AcceptTLS struct {
	// Config returns the configuration for the next handshake. Config is called once for each client, by any goroutine,
	// and must not block. Session tickets belong to the *tls.Config, so Config should return the same one until
	// something changes that may make a resumed session wrong, such as the authorities of client certificates.
	Config func() *tls.Config

	// Timeout is how long the handshake may take. A zero or negative Timeout means 10 s.
	Timeout time.Duration

	// Plain serves clients in plain text too: those whose first bytes do not begin a TLS handshake. Nothing of them is
	// decrypted, and all of it reaches the endpoint, such as PostgreSQL's request for TLS. A client that sends nothing
	// for 5 s counts as plain, because the server of its protocol may speak first.
	Plain bool
}

func (a *AcceptTLS) equal(o *AcceptTLS) bool { return a == o }

func (a *AcceptTLS) timeout() time.Duration {
	if a.Timeout <= 0 {
		return 10 * time.Second
	}
	return a.Timeout
}

// An EndpointTLS says how TLS is spoken with the endpoints of a service. A handshake runs outside of the event loops,
// and must end within the connect timeout of the service. An endpoint whose handshake fails was not reached: the
// failure has the cause lb.Handshake, and the next endpoint is tried.
//
// As with AcceptTLS, only the same pointer is the same EndpointTLS.
type EndpointTLS struct {
	// Config returns the configuration for the next handshake with e, which must verify e. Config is called once for
	// each dial, by any goroutine, and must not block. An error means that e cannot be reached; it is logged.
	Config func(e lb.Endpoint) (*tls.Config, error)

	// HeaderInside says that a PROXY header for the endpoint is the first thing inside TLS, as in a service mesh: there
	// a sidecar speaks TLS for the service that reads the header. Otherwise the header goes ahead of the handshake.
	HeaderInside bool

	// Denies says that the endpoints decide by Lictor's certificate whether they serve it, as those of a service mesh
	// do by its intentions. An endpoint denies a connection if it ends it by an alert about that certificate before it
	// has sent anything. Then the client is refused with RefusedDenied, no other endpoint is tried, and the endpoint's
	// health stays as it is. Without Denies, such an end is a failure of the endpoint.
	Denies bool
}

func (e *EndpointTLS) equal(o *EndpointTLS) bool { return e == o }

// A TLSPeer says what the TLS handshake with a client has shown.
type TLSPeer struct {
	Version     uint16 // such as tls.VersionTLS13
	CipherSuite uint16 // such as tls.TLS_AES_128_GCM_SHA256
	Resumed     bool   // the session of an earlier connection goes on
	ServerName  string // the name that the client asked for (SNI); empty if it asked for none
	Protocol    string // negotiated by ALPN; empty if none was

	// Certificate is the client's own certificate. Certificate is nil if the client had none. It must not be changed.
	Certificate *x509.Certificate
}

// tlsPeerOf returns what the handshake of a connection with a client has shown.
func tlsPeerOf(state tls.ConnectionState) *TLSPeer {
	p := &TLSPeer{Version: state.Version, CipherSuite: state.CipherSuite, Resumed: state.DidResume,
		ServerName: state.ServerName, Protocol: state.NegotiatedProtocol}
	if len(state.PeerCertificates) > 0 {
		p.Certificate = state.PeerCertificates[0]
	}
	return p
}

// errClientHandshake refuses a client with which the TLS handshake has failed.
var errClientHandshake = errors.New("TLS handshake with the client failed")

// errTruncated is why a connection fails whose peer has ended it without the close_notify of TLS. What the peer had to
// say may be incomplete (RFC 8446, section 6.1), so the other side gets a reset instead of an end.
var errTruncated = errors.New("TLS: the peer ended the connection without close_notify")

// clientHandshakeError returns the error for a client whose handshake has failed with err.
func clientHandshakeError(err error) error { return fmt.Errorf("%w: %w", errClientHandshake, err) }

// endpointHandshakeError returns the error of a dial to m whose handshake has failed with err.
func endpointHandshakeError(m *lb.Member, err error) error {
	return dialError(m, fmt.Errorf("%w: %w", lb.ErrHandshake, err))
}

// A peer that uses package tls, as another Lictor does, keeps a buffer for the largest record that it has got, for as
// long as the connection lasts. For records of earlyRecord bytes that are 8 KB, and for the largest ones 18 KB. Many
// connections never carry much, so each direction begins with earlyBytes in such records.
const (
	earlyBytes  = 128 << 10
	earlyRecord = 7 << 10
)

// seal makes c encrypt and write b. before is how many bytes c has encrypted before.
func seal(c *tls.Conn, b []byte, before int64) error {
	for ; before < earlyBytes && len(b) > earlyRecord; before += earlyRecord {
		if _, err := c.Write(b[:earlyRecord]); err != nil {
			return err
		}
		b = b[earlyRecord:]
	}
	_, err := c.Write(b)
	return err
}
