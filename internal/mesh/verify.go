package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// maxChain limits how many certificates a peer may show. The chains of Consul's own authorities are shorter.
const maxChain = 10

// A role is what a peer is in a handshake: the usage that its certificate must be for.
type role x509.ExtKeyUsage

const (
	asEndpoint = role(x509.ExtKeyUsageServerAuth)
	asClient   = role(x509.ExtKeyUsageClientAuth)
)

func (r role) String() string {
	if r == asClient {
		return "client"
	}
	return "endpoint"
}

// An IdentityError says that an endpoint has a certificate of the mesh, but is not who it should be.
type IdentityError struct {
	Got  []string // the URI names in the endpoint's certificate
	Want string   // the SPIFFE ID that the endpoint must prove
}

func (e *IdentityError) Error() string {
	switch len(e.Got) {
	case 0:
		return fmt.Sprintf("the endpoint's certificate has no URI name, want %q", e.Want)
	case 1:
		return fmt.Sprintf("the endpoint proves to be %q, want %q", e.Got[0], e.Want)
	}
	return fmt.Sprintf("the endpoint's certificate has %d URI names, such as %q, want only %q", len(e.Got), e.Got[0],
		e.Want)
}

// A verifier verifies an endpoint, as an Envoy of the mesh does: its chain must lead to one of all authorities, be for
// servers and be valid now, and its certificate must have one URI name, which is the ID that is expected.
type verifier struct {
	identity *identity
	path     string // of the ID that the endpoint must prove, in canonical form

	trusted atomic.Pointer[trusted] // what was trusted last; nil if nothing was
}

// trusted says that a certificate has been verified with these authorities, and is valid from until to.
type trusted struct {
	raw      []byte
	roots    *roots
	from, to time.Time
}

// holds reports whether the certificate still counts as verified with r at now.
func (t *trusted) holds(r *roots, now time.Time) bool {
	return t.roots == r && !now.Before(t.from) && !now.After(t.to)
}

// verify is for tls.Config.VerifyConnection. It verifies resumed sessions too, with the authorities of now. An error
// wraps a *tls.CertificateVerificationError, as those of crypto/tls itself do.
func (v *verifier) verify(state tls.ConnectionState) error {
	chain, c := state.PeerCertificates, v.identity.current.Load()
	if err := v.trust(chain, c.roots, time.Now()); err != nil {
		return err
	}
	want, got := id{c.roots.domain, v.path}, chain[0].URIs
	if len(got) == 1 {
		if is, err := parseID(got[0]); err == nil && is == want {
			return nil
		}
	}
	e := &IdentityError{Want: want.String()}
	for _, one := range got {
		e.Got = append(e.Got, one.String())
	}
	return unverified(chain, e)
}

// unverified returns the error for a peer that has shown chain and is refused because of err.
func unverified(chain []*x509.Certificate, err error) error {
	return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
}

// trust verifies the chain of an endpoint. A certificate that has just been verified is not verified again.
func (v *verifier) trust(chain []*x509.Certificate, r *roots, now time.Time) error {
	if t := v.trusted.Load(); t != nil && len(chain) > 0 && t.holds(r, now) && string(t.raw) == string(chain[0].Raw) {
		return nil
	}
	t, err := asEndpoint.verify(chain, r, now)
	if err != nil {
		return err
	}
	t.raw = chain[0].Raw
	v.trusted.Store(&t)
	return nil
}

// verify verifies the chain of a peer in this role with the authorities known. It does not look at who the peer is.
func (r role) verify(chain []*x509.Certificate, known *roots, now time.Time) (trusted, error) {
	switch {
	case len(chain) == 0:
		return trusted{}, unverified(chain, fmt.Errorf("the %v has shown none", r))
	case len(chain) > maxChain:
		return trusted{}, unverified(chain, fmt.Errorf("the %v has shown a chain of %d certificates, "+
			"at most %d are accepted", r, len(chain), maxChain))
	}
	options := x509.VerifyOptions{
		Roots: known.pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsage(r)},
	}
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	found, err := chain[0].Verify(options)
	if err != nil {
		return trusted{}, fmt.Errorf("the %v, which says that it is %s, cannot be verified: %w", r, claims(chain[0]),
			unverified(chain, err))
	}
	t := trusted{roots: known, from: chain[0].NotBefore, to: chain[0].NotAfter}
	for _, cert := range found[0] {
		if cert.NotBefore.After(t.from) {
			t.from = cert.NotBefore
		}
		if cert.NotAfter.Before(t.to) {
			t.to = cert.NotAfter
		}
	}
	return t, nil
}

// claims returns who a certificate says that it is for.
func claims(cert *x509.Certificate) string {
	if len(cert.URIs) == 0 {
		return "nobody of the mesh"
	}
	return fmt.Sprintf("%q", cert.URIs[0].String())
}

// An id is a SPIFFE ID in canonical form: the trust domain in lower case, and each part of the path escaped only where
// it must be. Ids can be compared.
type id struct{ domain, path string }

func (i id) String() string { return "spiffe://" + i.domain + i.path }

// parseID returns the SPIFFE ID that u is.
func parseID(u *url.URL) (id, error) {
	if u.Scheme != "spiffe" || u.Host == "" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery ||
		u.Fragment != "" {
		return id{}, fmt.Errorf("%q is no SPIFFE ID", u.String())
	}
	path, err := canonicalPath(u.EscapedPath())
	return id{strings.ToLower(u.Host), path}, err
}

// canonicalPath returns the canonical form of an escaped path.
func canonicalPath(path string) (string, error) {
	if !strings.Contains(path, "%") && url.PathEscape(path) == strings.ReplaceAll(path, "/", "%2F") {
		return path, nil
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil {
			return "", err
		}
		parts[i] = url.PathEscape(plain)
	}
	return strings.Join(parts, "/"), nil
}
