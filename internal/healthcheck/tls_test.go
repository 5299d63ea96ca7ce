package healthcheck

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// startSecure starts a server that answers over HTTPS with a certificate for 127.0.0.1 and example.com. The returned
// options use that certificate as authority and as client certificate.
func startSecure(t *testing.T, status int, want tls.ClientAuthType) (lb.Endpoint, certificates.Options) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
	}))
	s.Config.ErrorLog = nil
	s.TLS = &tls.Config{ClientAuth: want}
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert.pem", "CERTIFICATE", s.Certificate().Raw)
	return lb.Endpoint{ID: "a", Addr: netip.MustParseAddrPort(s.Listener.Addr().String())},
		certificates.Options{CAFile: cert, CertFile: cert, KeyFile: write("key.pem", "PRIVATE KEY", key)}
}

func TestChecksOverHTTPS(t *testing.T) {
	none := func(*certificates.Options) {}
	for _, tt := range []struct {
		name   string
		status int
		client tls.ClientAuthType
		change func(o *certificates.Options)
		want   string // why the endpoint gets no clients; empty if it gets clients
	}{
		{"known authority", 200, tls.NoClientCert, none, ""},
		{"bad status", 503, tls.NoClientCert, none, "GET https://127.0.0.1:"},
		{"system's authorities", 200, tls.NoClientCert, func(o *certificates.Options) { o.CAFile = "" }, "no answer: "},
		{"another name", 200, tls.NoClientCert, func(o *certificates.Options) {
			o.ServerName = "other.test"
		}, "other.test"},
		{"the right name", 200, tls.NoClientCert, func(o *certificates.Options) { o.ServerName = "example.com" }, ""},
		{"not verified", 200, tls.NoClientCert, func(o *certificates.Options) {
			*o = certificates.Options{InsecureSkipVerify: true, ServerName: "other.test"}
		}, ""},
		{"client certificate", 200, tls.RequireAnyClientCert, none, ""},
		{"no client certificate", 200, tls.RequireAnyClientCert, func(o *certificates.Options) {
			o.CertFile, o.KeyFile = "", ""
		}, "no answer: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, options := startSecure(t, tt.status, tt.client)
			tt.change(&options)
			j := newJudged(t, Check{HTTPS: true, TLS: options, MaxSilence: -1})
			if tt.want == "" {
				j.replace() // so that a must pass a check
			}
			j.replace(e)
			if tt.want == "" {
				j.awaitIn(t, "a")
			} else {
				j.awaitOut(t, "a", tt.want)
			}
			answered, err := j.Probe(t.Context(), "db", e)
			if wantAnswer := tt.want == "" || tt.status != 200; answered != wantAnswer {
				t.Errorf("answered %v, %v, want %v", answered, err, wantAnswer)
			}
		})
	}
}

// The certificate must match the endpoint's host name, if the endpoint has one.
func TestCertificateForAHostName(t *testing.T) {
	e, options := startSecure(t, 200, tls.NoClientCert)
	for host, good := range map[string]bool{"example.com": true, "localhost": false} {
		c := New(Options{})
		e.Host = host
		config, err := c.tlsConfig(&Check{TLS: options}, e)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", e.Addr.String(), config)
		if (err == nil) != good {
			t.Errorf("%s: got %v, want success %v", host, err, good)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

// Unusable files say nothing about an endpoint. Checks continue when the files are usable again.
func TestFilesOfACheckAreReadAgain(t *testing.T) {
	e, options := startSecure(t, 503, tls.NoClientCert)
	good, err := os.ReadFile(options.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	install := func(content []byte) {
		if err := os.WriteFile(options.CAFile, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install([]byte("garbage"))
	j := newJudged(t, Check{HTTPS: true, TLS: certificates.Options{CAFile: options.CAFile}, MaxSilence: -1})
	j.replace(e)
	if answered, err := j.Probe(t.Context(), "db", e); answered || err == nil ||
		!strings.Contains(err.Error(), "no certificate in PEM form") {
		t.Errorf("got %v, %v", answered, err)
	}
	if why := j.out("a"); why != "" {
		t.Errorf("a gets no clients: %s", why)
	}
	install(good)
	j.awaitOut(t, "a", "status 503")
}

// A check that is changed to HTTPS keeps the results of its endpoints.
func TestAChangeToHTTPS(t *testing.T) {
	e, options := startSecure(t, 200, tls.NoClientCert)
	j := newJudged(t, Check{MaxSilence: -1})
	j.replace(e)
	j.awaitOut(t, "a", "status 400") // from a server that expects TLS
	j.Apply(map[string]Check{"db": {Path: "/primary", Interval: 5 * time.Millisecond, Timeout: testproc.Patience,
		HTTPS: true, TLS: options}})
	j.awaitIn(t, "a")
}

// With NameFrom, the name of the registration counts. An endpoint without one is not asked, and a change of the name
// counts from the next check on.
func TestCertificateForTheNameOfAnInstance(t *testing.T) {
	e, options := startSecure(t, 200, tls.NoClientCert)
	j := newJudged(t, Check{HTTPS: true, TLS: options, NameFrom: `its meta "name"`, MaxSilence: -1})
	j.replace() // so that a must pass a check
	j.replace(e)
	j.awaitOut(t, "a", `no valid server name in its meta "name"`)
	for range 2 {
		e.ServerName = "example.com"
		j.replace(e)
		j.awaitIn(t, "a")
		e.ServerName = "other.test"
		j.replace(e)
		j.awaitOut(t, "a", "other.test")
	}
}
