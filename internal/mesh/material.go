package mesh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// roots are the authorities of a trust domain. They do not change.
type roots struct {
	domain string // the trust domain, in lower case
	all    []Root // as State shows them
	given  []savedRoot
	pool   *x509.CertPool
}

// newRoots returns the authorities with these certificates. It returns an error if one of them cannot be used: the
// answer may be broken elsewhere too.
func newRoots(domain string, given []savedRoot) (roots, error) {
	r := roots{domain: strings.ToLower(domain), given: given, pool: x509.NewCertPool()}
	if r.domain == "" {
		return roots{}, errors.New("it has no trust domain: is the service mesh enabled in Consul?")
	}
	if len(given) == 0 {
		return roots{}, errors.New("it has no authority")
	}
	for _, one := range given {
		some, err := certificatesIn([]byte(one.PEM))
		if err != nil {
			return roots{}, fmt.Errorf("authority %q: %w", one.ID, err)
		}
		for _, cert := range some {
			r.pool.AddCert(cert)
		}
		r.all = append(r.all, Root{ID: one.ID, Name: one.Name, Active: one.Active, From: some[0].NotBefore,
			Expires: some[0].NotAfter})
	}
	return r, nil
}

// equal reports whether two sets of authorities are the same.
func (r *roots) equal(o *roots) bool {
	if o == nil || r.domain != o.domain || len(r.given) != len(o.given) {
		return false
	}
	for i := range r.given {
		if r.given[i] != o.given[i] {
			return false
		}
	}
	return true
}

// active returns the authority that signs new certificates. If Consul names none, it is the first one.
func (r *roots) active() Root {
	for _, one := range r.all {
		if one.Active {
			return one
		}
	}
	return r.all[0]
}

// A leaf is the certificate of an identity, with its key. It does not change. It has no parsed certificate, which would
// take some kilobytes for each identity.
type leaf struct {
	pair      tls.Certificate
	uri       string // the SPIFFE ID
	domain    string // the trust domain, in lower case
	partition string
	serial    string
	from, to  time.Time
	received  time.Time
}

// newLeaf returns the certificate for the identity called name. It returns an error if the certificate and the key do
// not belong together, or are for another identity. The error never quotes the key.
func newLeaf(name string, certPEM, keyPEM []byte, received time.Time) (leaf, error) {
	if len(bytes.TrimSpace(certPEM)) == 0 || len(bytes.TrimSpace(keyPEM)) == 0 {
		return leaf{}, errors.New("it has no certificate, or no key")
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return leaf{}, err
	}
	chain, err := certificatesIn(certPEM)
	if err != nil {
		return leaf{}, err
	}
	own := chain[0]
	l := leaf{pair: pair, serial: serialOf(own), from: own.NotBefore, to: own.NotAfter, received: received}
	l.pair.Leaf = nil
	if len(own.URIs) != 1 {
		return leaf{}, fmt.Errorf("its certificate has %d URI names, but must have one", len(own.URIs))
	}
	l.uri = own.URIs[0].String()
	id, err := parseID(own.URIs[0])
	if err != nil {
		return leaf{}, err
	}
	service, is := serviceOf(id)
	if !is || service.Service != name {
		return leaf{}, fmt.Errorf("its certificate is for %q", l.uri)
	}
	l.domain, l.partition = service.TrustDomain, service.Partition
	return l, nil
}

// equal reports whether two certificates are the same.
func (l *leaf) equal(o *leaf) bool {
	return o != nil && bytes.Equal(l.pair.Certificate[0], o.pair.Certificate[0]) &&
		len(l.pair.Certificate) == len(o.pair.Certificate)
}

// serialOf returns the serial number of a certificate in the form that Consul shows.
func serialOf(cert *x509.Certificate) string {
	var parts []string
	for _, b := range cert.SerialNumber.Bytes() {
		parts = append(parts, hex.EncodeToString([]byte{b}))
	}
	return strings.Join(parts, ":")
}

// certificatesIn returns the certificates in a text in PEM format: at least one.
func certificatesIn(text []byte) (all []*x509.Certificate, err error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return all, nil
}
