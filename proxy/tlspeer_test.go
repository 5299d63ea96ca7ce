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
	if got := (&TLSPeer{Certificate: c.Leaf}).Identity(); got != "spiffe://test/app" {
		t.Errorf("got the identity %q", got)
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

// A client whose certificate does not say exactly who it is has no identity.
func TestIdentity(t *testing.T) {
	ca := testcert.NewAuthority(t, "root")
	for _, tt := range []struct {
		name string
		uris []string
		want string
	}{
		{"none", nil, ""},
		{"one", []string{"spiffe://test/ns/default/dc/dc1/svc/a%20b"}, "spiffe://test/ns/default/dc/dc1/svc/a%20b"},
		{"two", []string{"spiffe://test/a", "spiffe://test/b"}, ""},
		{"another scheme", []string{"https://test/a"}, ""},
		{"no trust domain", []string{"spiffe:///a"}, ""},
		{"the longest", []string{"spiffe://test/" + strings.Repeat("a", 2034)},
			"spiffe://test/" + strings.Repeat("a", 2034)},
		{"too long", []string{"spiffe://test/" + strings.Repeat("a", 2035)}, ""},
	} {
		p := &TLSPeer{Certificate: ca.Issue(t, testcert.Request{URIs: tt.uris}).TLS(t).Leaf}
		if got := p.Identity(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := (&TLSPeer{}).Identity(); got != "" {
		t.Errorf("got %q without a certificate", got)
	}
}
