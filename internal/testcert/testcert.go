// Package testcert makes certificate authorities and certificates for tests.
//
//	ca := testcert.NewAuthority(t, "root")
//	certFile, keyFile := ca.Issue(t, testcert.Request{Names: []string{"web.test"}}).Write(t, dir, "web")
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte // its certificate and those up to the root, without the root's
}

// NewAuthority returns an authority with that name, valid for a day.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	template, key := authority(t, name), newKey(t)
	return &Authority{Certificate: sign(t, template, template, key, key), key: key}
}

// NewAuthority returns an authority with that name that a has signed. What it issues comes with the chain up to the
// root.
func (a *Authority) NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	cert := sign(t, authority(t, name), a.Certificate, key, a.key)
	return &Authority{cert, key, append(block("CERTIFICATE", cert.Raw), a.chain...)}
}

func authority(t testing.TB, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
}

// PEM returns the certificate of a.
func (a *Authority) PEM() []byte { return block("CERTIFICATE", a.Certificate.Raw) }

// Pool returns a pool that has only the certificate of a.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// WriteFile writes the certificate of a to the file name in dir, and returns its path.
func (a *Authority) WriteFile(t testing.TB, dir, name string) string {
	t.Helper()
	return write(t, filepath.Join(dir, name), a.PEM())
}

// A Request says what a certificate is for.
type Request struct {
	CommonName string
	Names      []string           // host names; a name that is an IP address is one
	URIs       []string           // such as SPIFFE IDs
	From, To   time.Time          // when it is valid; zero: an hour ago, and in an hour
	Usages     []x509.ExtKeyUsage // nil: for servers and for clients
}

// A Certificate is a certificate with its key, in PEM format.
type Certificate struct{ Cert, Key []byte }

// Issue returns a certificate that a has signed.
func (a *Authority) Issue(t testing.TB, r Request) Certificate {
	t.Helper()
	if r.From.IsZero() {
		r.From = time.Now().Add(-time.Hour)
	}
	if r.To.IsZero() {
		r.To = time.Now().Add(time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: r.CommonName}, NotBefore: r.From, NotAfter: r.To,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: r.Usages,
	}
	if r.Usages == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for _, name := range r.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	for _, text := range r.URIs {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	key := newKey(t)
	cert := sign(t, template, a.Certificate, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate{append(block("CERTIFICATE", cert.Raw), a.chain...), block("PRIVATE KEY", der)}
}

// Write writes the certificate to NAME.pem and its key to NAME.key in dir, and returns their paths.
func (c Certificate) Write(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	return write(t, filepath.Join(dir, name+".pem"), c.Cert), write(t, filepath.Join(dir, name+".key"), c.Key)
}

// TLS returns the certificate for package crypto/tls.
func (c Certificate) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
