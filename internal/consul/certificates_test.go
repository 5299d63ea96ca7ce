package consul

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/hostport"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// sign returns a certificate for 127.0.0.1 and its key, in PEM.
func (a *authority) sign(t *testing.T, name string) (cert, key string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// startTLS starts a server with a certificate of a. The server requires a client certificate of a, and returns that
// certificate's name in a header.
func (a *authority) startTLS(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Client", r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	cert, key := a.sign(t, "agent")
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: pool}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// filesIn returns options with the paths of all kinds of files in dir.
func filesIn(dir string) TLSOptions {
	in := func(name string) string { return filepath.Join(dir, name) }
	return TLSOptions{CAFile: in("ca"), CertFile: in("cert"), KeyFile: in("key")}
}

func TestCertificatesAreReadAgainForEachConnection(t *testing.T) {
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	first, second := one.startTLS(t), two.startTLS(t)
	dir := t.TempDir()
	o := filesIn(dir)
	install := func(a *authority, name string) {
		cert, key := a.sign(t, name)
		write(t, o.CAFile, a.pem)
		write(t, o.CertFile, cert)
		write(t, o.KeyFile, key)
	}
	install(one, "old")
	var log testproc.Log
	transport := transportTo(t, first.URL, o, logger(&log))
	client := &http.Client{Transport: transport}
	t.Cleanup(client.CloseIdleConnections)
	get := func(s *httptest.Server) (client string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			return "", err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("spoken over %s", resp.Proto)
		}
		return resp.Header.Get("X-Client"), nil
	}
	want := func(s *httptest.Server, name string) {
		t.Helper()
		if got, err := get(s); got != name || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, name)
		}
	}
	want(first, "old")
	if _, err := get(second); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an agent of an unknown authority: %v", err)
	}
	install(two, "new")
	want(second, "new")
	want(first, "old") // the open connection stays open

	write(t, o.CertFile, "garbage")
	client.CloseIdleConnections()
	want(second, "new")
	wantOnce(t, &log, "the certificate files cannot be used")
	install(two, "newer")
	client.CloseIdleConnections()
	want(second, "newer")
	wantOnce(t, &log, "the certificate files can be used again")
}

func TestCertificateForAnotherNameIsRefused(t *testing.T) {
	one := newAuthority(t, "one")
	s := one.startTLS(t)
	dir := t.TempDir()
	cert, key := one.sign(t, "client")
	o := filesIn(dir)
	o.ServerName = "server.dc1.consul"
	write(t, o.CAFile, one.pem)
	write(t, o.CertFile, cert)
	write(t, o.KeyFile, key)
	for _, tt := range []struct {
		name, want string
		change     func()
	}{
		{"other name", "server.dc1.consul", func() {}},
		{"anything goes", "", func() { o.InsecureSkipVerify = true }},
	} {
		tt.change()
		transport := transportTo(t, s.URL, o, hclog.NewNullLogger())
		resp, err := (&http.Client{Transport: transport}).Get(s.URL)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

func mustParse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// transportTo returns a transport to a server.
func transportTo(t *testing.T, server string, o TLSOptions, log hclog.Logger) *http.Transport {
	t.Helper()
	files, err := certificates.New(o, log)
	must(t, err)
	return newTransport(hostport.Agent{URL: *mustParse(t, server)}, files, new(net.Dialer).DialContext)
}
