package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

func TestTLSPeerInWords(t *testing.T) {
	c := testcert.NewAuthority(t, "root").Issue(t, testcert.Request{CommonName: "app",
		Names: []string{"app.test", "10.0.0.1"}, URIs: []string{"spiffe://test/app"}}).TLS(t)
	p := &TLSPeer{Version: tls.VersionTLS13, Certificate: c.Leaf}
	if p.VersionNumber() != "1.3" || p.Subject() != "CN=app" ||
		strings.Join(p.Names(), " ") != "app.test spiffe://test/app 10.0.0.1" {
		t.Errorf("got %q, %q and %q", p.VersionNumber(), p.Subject(), p.Names())
	}
	if p = (&TLSPeer{Version: tls.VersionTLS12}); p.VersionNumber() != "1.2" || p.Subject() != "" || p.Names() != nil {
		t.Errorf("got %q, %q and %q", p.VersionNumber(), p.Subject(), p.Names())
	}
	long := strings.Repeat("x", 600)
	p.Certificate = &x509.Certificate{Subject: pkix.Name{CommonName: long}, DNSNames: []string{long, long, "short"}}
	if got := p.Subject(); len(got) > maxSubject+3 || !strings.HasSuffix(got, "...") {
		t.Errorf("got %q", got)
	}
	if got := p.Names(); len(got) != 2 || got[0] != long || got[1] != "..." {
		t.Errorf("got %q", got)
	}
	if len(p.Certificate.DNSNames) != 3 || p.Certificate.DNSNames[1] != long {
		t.Error("the certificate was changed")
	}
}
