package certificates

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// An endpoint is verified by the authorities and by its name, also when a session is resumed.
func TestClientVerifiesEndpoints(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	caFile := ca.WriteFile(t, dir, "ca.pem")
	endpoint := &tls.Config{Certificates: []tls.Certificate{
		ca.Issue(t, testcert.Request{Names: []string{"db.test", "10.0.0.1"}}).TLS(t)}}
	other := &tls.Config{Certificates: []tls.Certificate{
		testcert.NewAuthority(t, "other").Issue(t, testcert.Request{Names: []string{"db.test"}}).TLS(t)}}
	for _, tt := range []struct {
		what, name string
		options    Options
		endpoint   *tls.Config
		good       bool
	}{
		{"the endpoint's name", "db.test", Options{CAFile: caFile}, endpoint, true},
		{"the endpoint's address", "10.0.0.1", Options{CAFile: caFile}, endpoint, true},
		{"another name", "web.test", Options{CAFile: caFile}, endpoint, false},
		{"another address", "10.0.0.2", Options{CAFile: caFile}, endpoint, false},
		{"the name of the settings", "web.test", Options{CAFile: caFile, ServerName: "db.test"}, endpoint, true},
		{"another authority", "db.test", Options{CAFile: caFile}, other, false},
		{"the system's authorities", "db.test", Options{}, endpoint, false},
		{"a folder", "db.test", Options{CAPath: dir}, endpoint, true},
		{"not verified", "web.test", Options{InsecureSkipVerify: true}, other, true},
	} {
		c, err := k.Client(ClientOptions{Service: "db", Options: tt.options, MinVersion: tls.VersionTLS12})
		must(t, err)
		for range 2 {
			_, _, err := shake(t, c.Config("a:1", tt.name), tt.endpoint)
			if (err == nil) != tt.good {
				t.Errorf("%s: got %v, want success %v", tt.what, err, tt.good)
			}
		}
		c.Close()
	}
	if len(k.kept) != 0 {
		t.Errorf("%d files are kept, although nobody uses them", len(k.kept))
	}
}

// Sessions are resumed only with the same endpoint under the same name, and not after the authorities have changed.
func TestSessionsOfEndpoints(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	caFile := ca.WriteFile(t, dir, "ca.pem")
	endpoint := &tls.Config{Certificates: []tls.Certificate{
		ca.Issue(t, testcert.Request{Names: []string{"db.test", "web.test"}}).TLS(t)}}
	c, err := k.Client(ClientOptions{Service: "db", Options: Options{CAFile: caFile}})
	must(t, err)
	defer c.Close()
	for i, tt := range []struct {
		address, name string
		resumed       bool
	}{
		{"a:1", "db.test", false}, {"a:1", "db.test", true}, {"b:1", "db.test", false}, {"a:1", "web.test", false},
		{"a:1", "web.test", true}, {"b:1", "db.test", true},
	} {
		got, _, err := shake(t, c.Config(tt.address, tt.name), endpoint)
		must(t, err)
		if got.DidResume != tt.resumed {
			t.Errorf("handshake %d: resumed %v, want %v", i, got.DidResume, tt.resumed)
		}
	}
	before := c.Config("a:1", "db.test")
	if _, _, err := shake(t, before, endpoint); err != nil {
		t.Error(err)
	}
	testcert.NewAuthority(t, "other").WriteFile(t, dir, "ca.pem")
	testproc.Await(t, "the other authority", func() bool { return c.Config("a:1", "db.test") != before })
	if _, _, err := shake(t, c.Config("a:1", "db.test"), endpoint); err == nil {
		t.Error("an endpoint of the former authority is believed")
	}
}

// A certificate that has expired since does not get in by a resumed session, at either end.
func TestExpiryOfResumedSessions(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	issue := func(name string, to time.Time) (cert, key string) {
		return ca.Issue(t, testcert.Request{Names: []string{"db.test"}, To: to}).Write(t, dir, name)
	}
	longCert, longKey := issue("long", time.Time{})
	shortCert, shortKey := issue("short", time.Now().Add(3*time.Second)) // crypto/tls has no other clock
	caFile := ca.WriteFile(t, dir, "ca.pem")
	for what, own := range map[string][2]Pair{
		"client":   {{shortCert, shortKey}, {longCert, longKey}},
		"endpoint": {{longCert, longKey}, {shortCert, shortKey}},
	} {
		client, err := k.Client(ClientOptions{Options: Options{CAFile: caFile, CertFile: own[0].CertFile,
			KeyFile: own[0].KeyFile}})
		must(t, err)
		defer client.Close()
		server, err := k.Server(ServerOptions{ClientCAFile: caFile, Certificates: []Pair{own[1]}})
		must(t, err)
		defer server.Close()
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			resumed := false
			testproc.Await(t, "the end of the certificate", func() bool {
				c, _, err := shake(t, client.Config("a:1", "db.test"), server.Config())
				resumed = resumed || err == nil && c.DidResume
				return err != nil
			})
			if !resumed {
				t.Error("no session was resumed")
			}
		})
	}
}

func TestUnusableFilesAreRefused(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	cert, key := ca.Issue(t, testcert.Request{}).Write(t, dir, "a")
	_, other := ca.Issue(t, testcert.Request{}).Write(t, dir, "b")
	empty := filepath.Join(dir, "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	for what, o := range map[string]ServerOptions{
		"no file":       {Certificates: []Pair{{filepath.Join(dir, "none"), key}}},
		"another key":   {Certificates: []Pair{{cert, other}}},
		"no authority":  {Certificates: []Pair{{cert, key}}, ClientCAFile: empty},
		"second is bad": {Certificates: []Pair{{cert, key}, {cert, other}}},
	} {
		if s, err := k.Server(o); err == nil {
			t.Errorf("%s: accepted", what)
			s.Close()
		}
	}
	for what, o := range map[string]Options{
		"no authority": {CAFile: empty}, "no folder": {CAPath: filepath.Join(dir, "none")},
		"another key": {CertFile: cert, KeyFile: other}, "no key": {CertFile: cert},
	} {
		if c, err := k.Client(ClientOptions{Options: o}); err == nil {
			t.Errorf("%s: accepted", what)
			c.Close()
		}
	}
	if len(k.kept) != 0 {
		t.Errorf("%d files are kept after errors", len(k.kept))
	}
}
