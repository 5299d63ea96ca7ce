//go:build unix

package daemon

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A tlsStage has the files for the TLS of a service.
type tlsStage struct {
	ca                *testcert.Authority
	caFile, cert, key string
}

func newTLSStage(t *testing.T) *tlsStage {
	t.Helper()
	dir, ca := t.TempDir(), testcert.NewAuthority(t, "root")
	s := &tlsStage{ca: ca, caFile: ca.WriteFile(t, dir, "ca.pem")}
	s.cert, s.key = ca.Issue(t, testcert.Request{Names: []string{"web.test", "127.0.0.1"}}).Write(t, dir, "web")
	return s
}

// tls returns the blocks of a service that speaks TLS at both ends.
func (s *tlsStage) tls(clients, endpoints string) string {
	return fmt.Sprintf("tls {\n cert_file = %q\n key_file = %q\n%s\n}\nendpoint_tls {\n ca_file = %q\n%s\n}\n",
		s.cert, s.key, clients, s.caFile, endpoints)
}

// The proxier compares the ends of a service by their pointers, so they must stay the same until their settings change.
func TestEndsStayTheSameOverReloads(t *testing.T) {
	stage := newTLSStage(t)
	k := newKeyring(hclog.NewNullLogger(), nil)
	const at, instanceAt = "127.0.0.1:1", "127.0.0.1:9"
	prepare := func(src string) ([]proxy.Service, step) {
		t.Helper()
		cfg := mustParse(t, src)
		keys, s, err := prepareKeys(k, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return proxyServices(cfg, keys), s
	}
	web := func(clients, endpoints string) string {
		return service("web", at, instanceAt, stage.tls(clients, endpoints))
	}
	bare := service("bare", "127.0.0.1:2", instanceAt, "")
	first, s := prepare(web("", "") + bare)
	s.Commit()
	if first[0].AcceptTLS != nil || first[0].EndpointTLS != nil {
		t.Error("a service without TLS has got some")
	}
	now := first[1]
	for _, tt := range []struct {
		what                 string
		src                  string
		newAccept, newExpect bool
		abort                bool
	}{
		{"the same", web("", "") + bare, false, false, false},
		{"another argument of the service",
			service("web", at, instanceAt, "idle_timeout = \"1m\"\n"+stage.tls("", "")), false, false, false},
		{"a reload that fails", web(`min_version = "1.3"`, `alpn = ["x"]`), true, true, true},
		{"another version for clients", web(`min_version = "1.3"`, ""), true, false, false},
		{"other protocols for endpoints", web(`min_version = "1.3"`, `alpn = ["x"]`), false, true, false},
	} {
		all, s := prepare(tt.src)
		next := all[len(all)-1]
		if got := next.AcceptTLS != now.AcceptTLS; got != tt.newAccept {
			t.Errorf("%s: another AcceptTLS: %v", tt.what, got)
		}
		if got := next.EndpointTLS != now.EndpointTLS; got != tt.newExpect {
			t.Errorf("%s: another EndpointTLS: %v", tt.what, got)
		}
		if tt.abort {
			s.Abort()
			continue
		}
		s.Commit()
		now = next
	}
	if v := now.AcceptTLS.Config().MinVersion; v != tls.VersionTLS13 {
		t.Errorf("got version %x", v)
	}
}

// What the proxier gets for both ends of a service makes a client and an endpoint shake hands.
func TestEndsShakeHands(t *testing.T) {
	stage := newTLSStage(t)
	k := newKeyring(hclog.NewNullLogger(), nil)
	cfg := mustParse(t, service("web", "127.0.0.1:1", "127.0.0.1:2", stage.tls(
		fmt.Sprintf("client_ca_file = %q\n alpn = [\"a\", \"b\"]\n timeout = \"3s\"", stage.caFile),
		fmt.Sprintf("cert_file = %q\n key_file = %q\n alpn = [\"b\"]", stage.cert, stage.key))))
	keys, _, err := prepareKeys(k, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := proxyServices(cfg, keys)[0]
	if s.AcceptTLS.Timeout != cfg.Services[0].TLS.Timeout {
		t.Errorf("got timeout %v", s.AcceptTLS.Timeout)
	}
	for name, e := range map[string]lb.Endpoint{
		"127.0.0.1": {Addr: netip.MustParseAddrPort("127.0.0.1:2")},
		"web.test":  {Host: "web.test", Addr: netip.MustParseAddrPort("0.0.0.0:2")},
		"localhost": {Path: "/run/web"}, "10.0.0.1": {Addr: netip.MustParseAddrPort("10.0.0.1:2")},
	} {
		config, err := s.EndpointTLS.Config(e)
		if err != nil || config.ServerName != name {
			t.Errorf("got %q, %v, want %q", config.ServerName, err, name)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				err = tls.Server(conn, s.AcceptTLS.Config()).Handshake()
				_ = conn.Close()
			}
			done <- err
		}()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		over := tls.Client(client, config)
		err = over.Handshake()
		if good := name == "127.0.0.1" || name == "web.test"; (err == nil) != good {
			t.Errorf("%s: got %v, want success %v", name, err, good)
		}
		if err == nil && over.ConnectionState().NegotiatedProtocol != "b" {
			t.Errorf("got protocol %q", over.ConnectionState().NegotiatedProtocol)
		}
		_, _ = client.Close(), l.Close()
		testproc.Receive(t, "the end of the handshake", done)
	}
}

// An instance in Consul must give its name if the service asks for that. Static endpoints keep their own names.
func TestInstancesGiveTheirNames(t *testing.T) {
	stage := newTLSStage(t)
	for argument, want := range map[string]string{
		`server_name_meta = "name"`: `in its meta "name",`,
		`server_name_tag = "name="`: `in a tag that begins with "name=",`,
	} {
		cfg := mustParse(t, fmt.Sprintf("service \"web\" {\n listen = \"127.0.0.1:1\"\n"+
			"consul {}\n consul { filter = \"x\" }\n static { endpoints = [\"10.0.0.1:2\", \"db.test:2\"] }\n"+
			"check { http = \"/\" }\n endpoint_tls {\n ca_file = %q\n %s\n}\n}\n", stage.caFile, argument))
		keys, _, err := prepareKeys(newKeyring(hclog.NewNullLogger(), nil), cfg)
		if err != nil {
			t.Fatal(err)
		}
		e := lb.Endpoint{ID: "n/a", Host: "a.test", Addr: netip.MustParseAddrPort("127.0.0.1:2")}
		for _, config := range []func(lb.Endpoint) (*tls.Config, error){
			proxyServices(cfg, keys)[0].EndpointTLS.Config,
			balancing(cfg.Services[0], keys["web"].probe()).ProbeTLS.Config,
		} {
			if _, err := config(e); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", argument, err, want)
			}
			named := e
			named.ServerName = "b.test"
			if c, err := config(named); err != nil || c.ServerName != "b.test" {
				t.Errorf("%s: got %v, %v", argument, c, err)
			}
		}
		if from := healthChecksOf(cfg)["web"].NameFrom; !strings.Contains(want, from) || from == "" {
			t.Errorf("checks: got %q, want %q", from, want)
		}
		w := watchesOf(cfg)[0]
		for _, q := range []discovery.Query{w.Query, w.Next[0].Query} {
			if (q.ServerNameMeta == "name") == (q.ServerNameTag == "name=") {
				t.Errorf("%s: got query %+v", argument, q)
			}
		}
		for i, name := range []string{"10.0.0.1", "db.test"} {
			if got := w.Next[1].Endpoints[i].ServerName; got != name {
				t.Errorf("static endpoint: got name %q, want %q", got, name)
			}
		}
	}
}

// A reload with a bad file leaves everything as it was.
func TestReloadWithABadCertificate(t *testing.T) {
	stage := newTLSStage(t)
	src := service("web", "127.0.0.1:0", instance(t, "a"), stage.tls("", ""))
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	before := s.keys.inForce["web"]
	other := stage.ca.Issue(t, testcert.Request{})
	if err := os.WriteFile(stage.key, other.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.reload(strings.Replace(src, "tls {", "idle_timeout = \"1m\"\ntls {", 1))
	if err == nil || !strings.Contains(err.Error(), stage.key) {
		t.Errorf("got %v", err)
	}
	if s.keys.inForce["web"] != before {
		t.Error("the failed reload has changed the TLS of the service")
	}
}

// What happens to the certificates of a service is an event, and the API shows their state.
func TestCertificatesAreShown(t *testing.T) {
	stage := newTLSStage(t)
	s := serveConfiguration(t, service("web", "127.0.0.1:0", instance(t, "a"), stage.tls("", "")), nil)
	defer s.stop()
	all := s.certificates()["web"]
	if len(all) != 2 || all[0].File != stage.caFile || !all[0].Authorities || all[1].File != stage.cert ||
		all[1].State != admin.CertificateFine {
		t.Errorf("got %+v", all)
	}
	events := func() (texts string) {
		some, _, _ := s.events.After(0, "web", 100)
		for _, e := range some {
			if e.Kind == endpoints.KindCertificate {
				texts += e.Text + "\n"
			}
		}
		return texts
	}
	dir := filepath.Dir(stage.cert)
	expired := stage.ca.Issue(t, testcert.Request{To: time.Now().Add(-time.Minute)})
	expired.Write(t, dir, "web")
	testproc.Await(t, "the events of the expired certificate", func() bool {
		got := events()
		return strings.Contains(got, "web.key: new connections use") && strings.Contains(got, "has expired at")
	})
	if got := s.certificates()["web"][1].State; got != admin.CertificateExpired {
		t.Errorf("got %s", got)
	}
	testcert.Certificate{Cert: []byte("x"), Key: expired.Key}.Write(t, dir, "web")
	testproc.Await(t, "the event of the bad file", func() bool { return strings.Contains(events(), "cannot be used") })
	expired.Write(t, dir, "web")
	testproc.Await(t, "the event of the good file", func() bool { return strings.Contains(events(), "again") })
}
