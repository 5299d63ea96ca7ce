package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

func TestIdentityShakesHands(t *testing.T) {
	g := newStage(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		issuer := g.ca.NewAuthority(t, "dc2").NewAuthority(t, "dc2, leaves")
		server := serverConfig(t, certificateOf(t, issuer, "billing"))
		server.MaxVersion, server.NextProtos = version, []string{"http/1.1"}
		address, shaken := serve(t, server)
		c, err := g.web.Config(address, billing, "billing.default.dc1.internal."+domain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := connect(address, c); err != nil {
			t.Fatal(err)
		}
		state := <-shaken
		if state.Version != version || state.ServerName != "billing.default.dc1.internal."+domain {
			t.Errorf("got version %x and server name %q", state.Version, state.ServerName)
		}
		if got := state.PeerCertificates[0].URIs[0].String(); got != idOf("web") {
			t.Errorf("the endpoint saw %q", got)
		}
		if state.NegotiatedProtocol != "" {
			t.Errorf("got protocol %q", state.NegotiatedProtocol)
		}
	}
}

// Each of these endpoints differs in one thing from the one that is accepted.
func TestWrongEndpointsAreRefused(t *testing.T) {
	g := newStage(t)
	uris := func(all ...string) testcert.Request { return testcert.Request{URIs: all} }
	good := idOf("billing")
	deep := g.ca
	for i := range maxChain {
		deep = deep.NewAuthority(t, fmt.Sprint("depth ", i))
	}
	now := time.Now()
	for _, tt := range []struct {
		name    string
		ca      *testcert.Authority
		request testcert.Request
		want    string // in the error; empty: the endpoint is accepted
	}{
		{"the right one", g.ca, uris(good), ""},
		{"an upper case trust domain", g.ca, uris("spiffe://" + strings.ToUpper(domain) + billing), ""},
		{"an escaped path", g.ca, uris("spiffe://" + domain + "/ns/default/dc/dc1/svc/bill%69ng"), ""},
		{"another trust domain", g.ca, uris("spiffe://other.consul" + billing),
			`the endpoint proves to be "spiffe://other.consul/ns/default/dc/dc1/svc/billing", want "` + good + `"`},
		{"a trust domain with a port", g.ca, uris("spiffe://" + domain + ":1" + billing), "proves to be"},
		{"another service", g.ca, uris(idOf("stock")), `proves to be "` + idOf("stock") + `", want "` + good + `"`},
		{"another case of the service", g.ca, uris(idOf("Billing")), "proves to be"},
		{"another datacenter", g.ca, uris("spiffe://" + domain + "/ns/default/dc/dc2/svc/billing"), "proves to be"},
		{"another partition", g.ca, uris("spiffe://" + domain + "/ap/x" + billing), "proves to be"},
		{"a mesh gateway", g.ca, uris("spiffe://" + domain + "/gateway/mesh/dc/dc1"), "proves to be"},
		{"an agent", g.ca, uris("spiffe://" + domain + "/agent/client/dc/dc1/id/billing"), "proves to be"},
		{"a server", g.ca, uris("spiffe://" + domain + "/agent/server/dc/dc1"), "proves to be"},
		{"no path", g.ca, uris("spiffe://" + domain), "proves to be"},
		{"a query", g.ca, uris(good + "?x=1"), "proves to be"},
		{"another scheme", g.ca, uris("https://" + domain + billing), "proves to be"},
		{"two URIs", g.ca, uris(good, idOf("stock")), "has 2 URI names"},
		{"the same URI twice", g.ca, uris(good, good), "has 2 URI names"},
		{"no URI", g.ca, testcert.Request{Names: []string{"billing"}}, "has no URI name"},
		{"not for servers", g.ca, testcert.Request{URIs: []string{good},
			Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "incompatible key usage"},
		{"expired", g.ca, testcert.Request{URIs: []string{good}, From: now.Add(-time.Hour), To: now.Add(-time.Minute)},
			"expired or is not yet valid"},
		{"not valid yet", g.ca, testcert.Request{URIs: []string{good}, From: now.Add(time.Hour),
			To: now.Add(2 * time.Hour)},
			"expired or is not yet valid"},
		{"another authority", testcert.NewAuthority(t, "Consul CA 1"), uris(good),
			`which says that it is "` + good + `", cannot be verified: tls: failed to verify`},
		{"a long chain", deep, uris(good), fmt.Sprintf("a chain of %d certificates", maxChain+1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := serve(t, serverConfig(t, tt.ca.Issue(t, tt.request)))
			_, err := connect(address, mustConfig(t, g.web, address))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if errors.Is(err, ErrNotReady) {
				t.Error("the endpoint is not blamed")
			}
			if err != nil && !errors.As(err, new(*tls.CertificateVerificationError)) {
				t.Errorf("%v does not count as an error about the certificate", err)
			}
		})
	}
}

func TestSelfSignedEndpointIsRefused(t *testing.T) {
	g := newStage(t)
	own := testcert.NewAuthority(t, "billing")
	v := &verifier{identity: g.web.identity, path: billing}
	err := v.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{own.Certificate}})
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	if err = v.verify(tls.ConnectionState{}); err == nil {
		t.Error("an endpoint without a certificate was accepted")
	}
}

// A certificate that has been verified is verified again when it is no longer valid, or the authorities have changed.
func TestTrustEnds(t *testing.T) {
	g := newStage(t)
	pair := certificateOf(t, g.ca, "billing").TLS(t)
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	v, chain, r := &verifier{identity: g.web.identity, path: billing}, []*x509.Certificate{leaf}, g.store.known
	for _, tt := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{"now", time.Now(), true}, {"again", time.Now(), true},
		{"after its end", leaf.NotAfter.Add(time.Second), false},
		{"before its begin", leaf.NotBefore.Add(-time.Second), false},
	} {
		if err := v.trust(chain, r, tt.at); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	g.trust(t, testcert.NewAuthority(t, "another"))
	if v.trust(chain, g.store.known, time.Now()) == nil {
		t.Error("the certificate of a former authority was accepted")
	}
}

func TestIDsInCanonicalForm(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"spiffe://TD.consul/ns/default/dc/dc1/svc/web", "spiffe://td.consul/ns/default/dc/dc1/svc/web"},
		{"spiffe://td/svc/a%20b", "spiffe://td/svc/a%20b"},
		{"spiffe://td/svc/a%2Fb", "spiffe://td/svc/a%2Fb"},
		{"spiffe://td/svc/%61", "spiffe://td/svc/a"},
		{"spiffe://td/svc/a%3ab", "spiffe://td/svc/a:b"},
		{"spiffe://td/svc/a:b", "spiffe://td/svc/a:b"},
		{"http://td/svc/a", ""}, {"spiffe:td", ""}, {"spiffe:///svc/a", ""}, {"spiffe://u@td/svc/a", ""},
		{"spiffe://td/svc/a#b", ""},
	} {
		u, err := url.Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseID(u)
		if (err == nil) != (tt.want != "") || err == nil && got.String() != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}
