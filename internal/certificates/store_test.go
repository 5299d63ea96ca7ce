package certificates

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A keeper is a running Store of a test.
type keeper struct {
	*Store
	log testproc.Log

	mu      sync.Mutex
	reports []Report // guarded by mu
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{}
	k.Store = NewStore(hclog.New(&hclog.LoggerOptions{Output: &k.log}), func(r Report) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.reports = append(k.reports, r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func (k *keeper) reported() []Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Report(nil), k.reports...)
}

// shake makes a client and a server shake hands and send a byte each way. It returns what both have seen.
func shake(t *testing.T, client, server *tls.Config) (c, s tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	seen := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(seen)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		over := tls.Server(conn, server)
		defer func() { _ = over.Close() }()
		if over.Handshake() == nil {
			seen <- over.ConnectionState()
			_, _ = over.Write([]byte("x"))
			_, _ = over.Read(make([]byte, 1))
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		return c, s, err
	}
	defer func() { _ = conn.Close() }()
	if _, err = conn.Read(make([]byte, 1)); err != nil { // with TLS 1.3 a refusal comes here
		return c, s, err
	}
	_, _ = conn.Write([]byte("y"))
	return conn.ConnectionState(), <-seen, nil
}

func TestServerChoosesTheCertificateByName(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	o := ServerOptions{Service: "web"}
	for name, names := range map[string][]string{
		"1": {"first.test"}, "2": {"*.many.test"}, "3": {"one.many.test"},
	} {
		ca.Issue(t, testcert.Request{CommonName: name, Names: names}).Write(t, dir, name)
	}
	for _, name := range []string{"1", "2", "3"} {
		o.Certificates = append(o.Certificates,
			Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")})
	}
	server, err := k.Server(o)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for asked, want := range map[string]string{
		"first.test": "1", "FIRST.test": "1", "other.many.test": "2", "one.many.test": "3", "One.Many.Test": "3",
		"unknown.test": "1", "many.test": "1", "a.b.many.test": "1", "": "1",
	} {
		c, _, err := shake(t, &tls.Config{ServerName: asked, InsecureSkipVerify: true}, server.Config())
		if err != nil {
			t.Fatal(asked, err)
		}
		if got := c.PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%q gets certificate %s, want %s", asked, got, want)
		}
	}
}

// Certificates are replaced in the ways in which people replace them, and no handshake sees anything but a whole pair.
func TestReplacedCertificates(t *testing.T) {
	ca := testcert.NewAuthority(t, "root")
	issue := func(name string) testcert.Certificate {
		return ca.Issue(t, testcert.Request{CommonName: name, Names: []string{"web.test"}})
	}
	rewrite := func(t *testing.T, dir string, c testcert.Certificate) { c.Write(t, dir, "web") }
	for name, replace := range map[string]func(t *testing.T, dir string, c testcert.Certificate){
		"written": rewrite,
		"renamed": func(t *testing.T, dir string, c testcert.Certificate) {
			cert, key := c.Write(t, t.TempDir(), "web")
			must(t, os.Rename(cert, filepath.Join(dir, "web.pem")))
			must(t, os.Rename(key, filepath.Join(dir, "web.key")))
		},
		"links": func(t *testing.T, dir string, c testcert.Certificate) { // as certbot does it
			cert, key := c.Write(t, t.TempDir(), "web")
			for from, to := range map[string]string{cert: "web.pem", key: "web.key"} {
				must(t, os.Remove(filepath.Join(dir, to)))
				must(t, os.Symlink(from, filepath.Join(dir, to)))
			}
		},
		"removed and written": func(t *testing.T, dir string, c testcert.Certificate) {
			must(t, os.RemoveAll(dir))
			must(t, os.Mkdir(dir, 0o700))
			rewrite(t, dir, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, k := filepath.Join(t.TempDir(), "certs"), newKeeper(t)
			must(t, os.Mkdir(dir, 0o700))
			cert, key := issue("former").Write(t, dir, "web")
			server, err := k.Server(ServerOptions{Service: "web", Certificates: []Pair{{cert, key}}})
			must(t, err)
			defer server.Close()
			before := server.Config()
			replace(t, dir, issue("next"))
			awaitCertificate(t, server, ca, "next")
			if server.Config() != before {
				t.Error("there is another tls.Config, so all tickets are void")
			}
			testproc.Await(t, "a report", func() bool { return len(k.reported()) == 1 })
			r := k.reported()[0]
			if r.Err != nil || r.Certificate.Subject.CommonName != "next" || strings.Join(r.Services, " ") != "web" {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// Kubernetes swaps the link to a folder, so that both files change at once.
func TestASwappedFolder(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	for _, name := range []string{"former", "next"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		next := ca.Issue(t, testcert.Request{CommonName: name, Names: []string{"web.test"}})
		next.Write(t, filepath.Join(dir, name), "tls")
	}
	must(t, os.Symlink("former", filepath.Join(dir, "..data")))
	must(t, os.Symlink("..data/tls.pem", filepath.Join(dir, "tls.pem")))
	must(t, os.Symlink("..data/tls.key", filepath.Join(dir, "tls.key")))
	server, err := k.Server(ServerOptions{Service: "web",
		Certificates: []Pair{{filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")}}})
	must(t, err)
	defer server.Close()
	must(t, os.Symlink("next", filepath.Join(dir, "..data_tmp")))
	must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	awaitCertificate(t, server, ca, "next")
}

// Files that do not fit together leave the former pair in use. That is logged and reported once, and so is the end.
func TestBadFilesKeepTheFormerPair(t *testing.T) {
	dir, ca, k := t.TempDir(), testcert.NewAuthority(t, "root"), newKeeper(t)
	cert, key := ca.Issue(t, testcert.Request{CommonName: "former", Names: []string{"web.test"}}).Write(t, dir, "web")
	server, err := k.Server(ServerOptions{Service: "web", Certificates: []Pair{{cert, key}}})
	must(t, err)
	defer server.Close()
	next := ca.Issue(t, testcert.Request{CommonName: "next", Names: []string{"web.test"}})
	must(t, os.WriteFile(cert, next.Cert, 0o600)) // the key is still the former one
	testproc.Await(t, "a report of the bad pair", func() bool { return len(k.reported()) == 1 })
	if r := k.reported()[0]; r.Err == nil || !strings.Contains(r.Err.Error(), key) {
		t.Errorf("got %v", r.Err)
	}
	awaitCertificate(t, server, ca, "former")
	k.Look() // sees the same
	must(t, os.WriteFile(key, next.Key, 0o600))
	awaitCertificate(t, server, ca, "next")
	testproc.Await(t, "a report of the good pair", func() bool { return len(k.reported()) == 2 })
	if n := strings.Count(k.log.String(), "cannot be used"); n != 1 {
		t.Errorf("%d lines about the bad pair, want 1:\n%s", n, k.log.String())
	}
	if strings.Contains(k.log.String(), "PRIVATE") {
		t.Error("the log has a key")
	}
}

// When the authorities of client certificates change, nobody gets in by a session of the former ones.
func TestClientAuthoritiesChange(t *testing.T) {
	dir, k := t.TempDir(), newKeeper(t)
	former, next := testcert.NewAuthority(t, "former"), testcert.NewAuthority(t, "next")
	cert, key := former.Issue(t, testcert.Request{Names: []string{"web.test"}}).Write(t, dir, "web")
	server, err := k.Server(ServerOptions{Service: "web", Certificates: []Pair{{cert, key}},
		ClientCAFile: former.WriteFile(t, dir, "ca.pem")})
	must(t, err)
	defer server.Close()
	client := &tls.Config{ServerName: "web.test", RootCAs: former.Pool(),
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		Certificates:       []tls.Certificate{former.Issue(t, testcert.Request{CommonName: "me"}).TLS(t)}}
	for _, resumed := range []bool{false, true} {
		_, s, err := shake(t, client, server.Config())
		must(t, err)
		if s.DidResume != resumed || s.PeerCertificates[0].Subject.CommonName != "me" {
			t.Errorf("got %v, resumed %v", s.PeerCertificates, s.DidResume)
		}
	}
	before := server.Config()
	next.WriteFile(t, dir, "ca.pem")
	testproc.Await(t, "the next authority", func() bool { return server.Config() != before })
	if _, _, err := shake(t, client, server.Config()); err == nil {
		t.Error("a client of the former authority got in")
	}
	client.Certificates = []tls.Certificate{next.Issue(t, testcert.Request{CommonName: "other"}).TLS(t)}
	_, s, err := shake(t, client, server.Config())
	must(t, err)
	if got := s.PeerCertificates[0].Subject.CommonName; got != "other" || s.DidResume {
		t.Errorf("got %s, resumed %v", got, s.DidResume)
	}
}

func awaitCertificate(t *testing.T, server *Server, ca *testcert.Authority, want string) {
	t.Helper()
	testproc.Await(t, "certificate "+want, func() bool {
		c, _, err := shake(t, &tls.Config{ServerName: "web.test", RootCAs: ca.Pool()}, server.Config())
		must(t, err)
		return c.PeerCertificates[0].Subject.CommonName == want
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
