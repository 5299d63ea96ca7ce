package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

// clientConfig returns the configuration of a client with this certificate, which trusts every server.
func clientConfig(t testing.TB, c testcert.Certificate, version uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.TLS(t)}, InsecureSkipVerify: true, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "billing"}
}

// serveWith returns the address of a TLS server that uses the configurations of s, as a listener of Lictor does, and
// the errors of its handshakes.
func serveWith(t testing.TB, s *Server) (address string, shaken <-chan error) {
	t.Helper()
	errs := make(chan error, 100)
	address = serveEach(t, func(c *tls.Conn) {
		errs <- c.Handshake()
	}, s.Config)
	return address, errs
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// deepAuthority returns an authority whose certificates have one more in their chains than is accepted.
func deepAuthority(t *testing.T, a *testcert.Authority) *testcert.Authority {
	for i := range maxChain {
		a = a.NewAuthority(t, fmt.Sprint("depth ", i))
	}
	return a
}

// Each of these clients differs in one thing from the one that is admitted.
func TestWrongClientsAreRefused(t *testing.T) {
	g := newStage(t)
	uris := func(all ...string) testcert.Request { return testcert.Request{URIs: all} }
	good, td := idOf("front"), "spiffe://"+domain
	deep := deepAuthority(t, g.ca)
	now := time.Now()
	var admitted atomic.Int64
	server := g.web.Server(ServerOptions{Admit: func(c Client) error {
		admitted.Add(1)
		if c.Service != "front" || c.Partition != "default" || c.TrustDomain != domain || c.Serial == "" {
			t.Errorf("admits %+v", c)
		}
		return nil
	}})
	for _, tt := range []struct {
		name    string
		ca      *testcert.Authority
		request testcert.Request
		want    string // in the error; empty: the client is admitted
	}{
		{"the right one", g.ca, uris(good), ""},
		{"an upper case trust domain", g.ca, uris(strings.Replace(good, domain, strings.ToUpper(domain), 1)), ""},
		{"an escaped path", g.ca, uris(td + "/ns/default/dc/dc1/svc/fr%6Fnt"), ""},
		{"another datacenter", g.ca, uris(td + "/ns/default/dc/dc2/svc/front"), ""},
		{"the default partition by name", g.ca, uris(td + "/ap/default/ns/default/dc/dc1/svc/front"), ""},
		{"another trust domain", g.ca, uris("spiffe://other.consul/ns/default/dc/dc1/svc/front"), "not in partition"},
		{"a trust domain with a port", g.ca, uris(td + ":1/ns/default/dc/dc1/svc/front"), "not in partition"},
		{"another partition", g.ca, uris(td + "/ap/x/ns/default/dc/dc1/svc/front"), "not in partition"},
		{"a mesh gateway", g.ca, uris(td + "/gateway/mesh/dc/dc1"), "not a service"},
		{"an agent", g.ca, uris(td + "/agent/client/dc/dc1/id/front"), "not a service"},
		{"a server", g.ca, uris(td + "/agent/server/dc/dc1"), "not a service"},
		{"the authority's ID", g.ca, uris(td), "not a service"},
		{"no namespace", g.ca, uris(td + "/dc/dc1/svc/front"), "not a service"},
		{"an empty name", g.ca, uris(td + "/ns/default/dc/dc1/svc/"), "not a service"},
		{"more after the name", g.ca, uris(good + "/x"), "not a service"},
		{"a query", g.ca, uris(good + "?x=1"), "is no SPIFFE ID"},
		{"another scheme", g.ca, uris("https://" + domain + "/ns/default/dc/dc1/svc/front"), "is no SPIFFE ID"},
		{"two URIs", g.ca, uris(good, idOf("stock")), "has 2 URI names"},
		{"the same URI twice", g.ca, uris(good, good), "has 2 URI names"},
		{"no URI", g.ca, testcert.Request{Names: []string{"front"}}, "has 0 URI names"},
		{"not for clients", g.ca, testcert.Request{URIs: []string{good},
			Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "incompatible key usage"},
		{"expired", g.ca, testcert.Request{URIs: []string{good}, From: now.Add(-time.Hour), To: now.Add(-time.Minute)},
			"expired or is not yet valid"},
		{"not valid yet", g.ca, testcert.Request{URIs: []string{good}, From: now.Add(time.Hour),
			To: now.Add(2 * time.Hour)}, "expired or is not yet valid"},
		{"another authority", testcert.NewAuthority(t, "Consul CA 1"), uris(good),
			`the client, which says that it is "` + good + `", cannot be verified: tls: failed to verify`},
		{"a long chain", deep, uris(good), fmt.Sprintf("a chain of %d certificates", maxChain+1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, version := range versions {
				address, shaken := serveWith(t, server)
				before := admitted.Load()
				_, err := connect(address, clientConfig(t, tt.ca.Issue(t, tt.request), version))
				served := <-shaken
				if (err == nil) != (tt.want == "") || (served == nil) != (tt.want == "") ||
					served != nil && !strings.Contains(served.Error(), tt.want) {
					t.Errorf("%x: got %v, client %v, want %q", version, served, err, tt.want)
				}
				if served != nil && !errors.As(served, new(*tls.CertificateVerificationError)) {
					t.Errorf("%v does not count as an error about the certificate", served)
				}
				if admitted.Load() != before && tt.want != "" {
					t.Error("Admit was asked about a client that was not verified")
				}
			}
		})
	}
}

func TestClientWithoutCertificateIsRefused(t *testing.T) {
	g := newStage(t)
	server := g.web.Server(ServerOptions{})
	own := testcert.NewAuthority(t, "front")
	if err := server.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{own.Certificate}}); err == nil {
		t.Error("a self-signed client was admitted")
	}
	for _, version := range versions {
		address, shaken := serveWith(t, server)
		_, err := connect(address, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if served := <-shaken; served == nil || err == nil {
			t.Errorf("%x: got %v, client %v", version, served, err)
		}
	}
}

// A chain may not cost more memory or time than those of Consul do.
func TestOversizeChainIsRefused(t *testing.T) {
	g := newStage(t)
	server := g.web.Server(ServerOptions{})
	for _, version := range versions {
		for _, length := range []int{maxChain, maxChain + 1, 1000} {
			address, shaken := serveWith(t, server)
			client := clientConfig(t, certificateOf(t, g.ca, "front"), version)
			chain := &client.Certificates[0].Certificate
			for len(*chain) < length {
				*chain = append(*chain, g.ca.Certificate.Raw)
			}
			_, err := connect(address, client)
			if served := <-shaken; (served == nil) != (length == maxChain) || (err == nil) != (length == maxChain) {
				t.Errorf("%x, %d certificates: got %v, client %v", version, length, served, err)
			}
		}
	}
}

// Admit is asked in each handshake, and the handshake ends with its error. A session that was admitted does not help.
func TestAdmitIsAskedInEachHandshake(t *testing.T) {
	for _, version := range versions {
		g, refusal := newStage(t), errors.New("denied")
		var refuses atomic.Bool
		var asked atomic.Int64
		server := g.web.Server(ServerOptions{Admit: func(Client) error {
			asked.Add(1)
			if refuses.Load() {
				return refusal
			}
			return nil
		}})
		address, shaken := serveWith(t, server)
		client := clientConfig(t, certificateOf(t, g.ca, "front"), version)
		for n, resumes := range []bool{false, true, true} {
			state, err := connect(address, client)
			if err != nil || <-shaken != nil || state.DidResume != resumes || asked.Load() != int64(n+1) {
				t.Errorf("%x, connection %d: resumed %v, asked %d times, %v", version, n, state.DidResume, asked.Load(),
					err)
			}
		}
		refuses.Store(true)
		if _, err := connect(address, client); err == nil {
			t.Errorf("%x: a client that is not admitted resumed its session", version)
		}
		if err := <-shaken; !errors.Is(err, refusal) {
			t.Errorf("%x: the handshake ended with %v", version, err)
		}
	}
}

// A session is resumed only at the Server that began it, and not after a new certificate or new authorities.
func TestServerSessionsEnd(t *testing.T) {
	for _, version := range versions {
		g := newStage(t)
		server, other := g.web.Server(ServerOptions{}), g.web.Server(ServerOptions{})
		client := clientConfig(t, certificateOf(t, g.ca, "front"), version)
		address, _ := serveWith(t, server)
		second, _ := serveWith(t, other)
		resumes := func(what, address string, want bool) {
			t.Helper()
			state, err := connect(address, client)
			if err != nil || state.DidResume != want {
				t.Errorf("%x, %s: resumed %v, %v, want %v", version, what, state.DidResume, err, want)
			}
		}
		resumes("first", address, false)
		resumes("second", address, true)
		resumes("another Server", second, false)
		resumes("at the first again", address, false)
		resumes("at the first for the second time", address, true)
		former := server.Config()
		if server.Config() != former {
			t.Error("another configuration although nothing has changed")
		}
		g.give(t, g.web)
		resumes("new certificate", address, false)
		resumes("after that", address, true)
		if server.Config() == former {
			t.Error("the configuration of the former certificate")
		}
		g.trust(t, testcert.NewAuthority(t, "new"), g.ca)
		resumes("more authorities", address, false)
		resumes("after that", address, true)
		former = server.Config()
		g.trust(t, testcert.NewAuthority(t, "only"))
		old := serveEach(t, func(c *tls.Conn) { _ = c.Handshake() }, func() *tls.Config { return former })
		for _, at := range []string{address, old} {
			if _, err := connect(at, client); err == nil {
				t.Errorf("%x: a client that is no longer trusted was admitted", version)
			}
		}
	}
}

func TestServerThatIsNotReady(t *testing.T) {
	s := newStore(Options{}, silent{})
	g := &stage{store: s, ca: testcert.NewAuthority(t, "ca"), web: s.Use("web", "billing")}
	server := g.web.Server(ServerOptions{})
	address, shaken := serveWith(t, server)
	client := clientConfig(t, certificateOf(t, g.ca, "front"), 0)
	fails := func(want string) {
		t.Helper()
		_, err := connect(address, client)
		served := <-shaken
		if err == nil || !errors.Is(served, ErrNotReady) || !strings.Contains(served.Error(), want) {
			t.Errorf("got %v, client %v, want %q", served, err, want)
		}
	}
	fails(`no certificate for identity "web" yet`)
	early := server.Config()
	g.trust(t, g.ca)
	g.give(t, g.web)
	if _, err := connect(address, client); err != nil || <-shaken != nil {
		t.Error(err)
	}
	late := serveEach(t, func(c *tls.Conn) { _ = c.Handshake() }, func() *tls.Config { return early })
	if _, err := connect(late, client); err != nil {
		t.Errorf("a handshake that began before the certificate came: %v", err)
	}
	c := g.ca.Issue(t, testcert.Request{URIs: []string{idOf("web")}, To: time.Now().Add(-time.Second)})
	l, err := newLeaf("web", c.Cert, c.Key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	(&leafNews{g.web.identity, l}).use(false)
	fails("has expired at")
}

// A Server remembers a bounded number of certificates, and forgets them when the authorities change.
func TestServerRemembersCertificates(t *testing.T) {
	g := newStage(t)
	server, c := g.web.Server(ServerOptions{}), g.web.current.Load()
	certificate := func() []*x509.Certificate {
		leaf, err := x509.ParseCertificate(certificateOf(t, g.ca, "front").TLS(t).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf}
	}
	chain := certificate()
	for range 2 * maxKnown {
		server.remember([32]byte{1, 2, byte(len(server.known)), byte(len(server.known) >> 8)}, provenClient{})
	}
	if _, err := server.prove(chain, c, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := len(server.known); n != maxKnown {
		t.Errorf("it remembers %d certificates, want %d", n, maxKnown)
	}
	for _, at := range []time.Time{chain[0].NotAfter.Add(time.Second), chain[0].NotBefore.Add(-time.Second)} {
		if _, err := server.prove(chain, c, at); err == nil {
			t.Errorf("a certificate counts as verified at %v", at)
		}
	}
	g.trust(t, testcert.NewAuthority(t, "another"))
	if _, err := server.prove(chain, g.web.current.Load(), time.Now()); err == nil {
		t.Error("a certificate counts as verified although its authority is gone")
	}
}

func TestClientOf(t *testing.T) {
	for in, want := range map[string]Client{
		"spiffe://TD.consul/ns/default/dc/dc1/svc/web": {URI: "spiffe://td.consul/ns/default/dc/dc1/svc/web",
			TrustDomain: "td.consul", Partition: "default", Namespace: "default", Datacenter: "dc1", Service: "web"},
		"spiffe://td/ap/p%20q/ns/n/dc/d/svc/a%2Fb": {URI: "spiffe://td/ap/p%20q/ns/n/dc/d/svc/a%2Fb",
			TrustDomain: "td", Partition: "p q", Namespace: "n", Datacenter: "d", Service: "a/b"},
		"spiffe://td/agent/client/dc/dc1/id/web": {},
	} {
		got, err := ClientOf(parsedCertificate(t, in))
		got.Serial = ""
		if (err == nil) != (want.URI != "") || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", in, got, err, want)
		}
	}
}

// parsedCertificate returns a certificate with one URI name.
func parsedCertificate(t testing.TB, uri string) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{URIs: []*url.URL{u}, SerialNumber: big.NewInt(1)}
}
