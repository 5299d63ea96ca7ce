//go:build unix

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A tlsServer is an instance that speaks TLS, with a certificate of its own. It greets with its name, and then echoes.
type tlsServer struct {
	addr        netip.AddrPort
	certificate tls.Certificate
	pool        *x509.CertPool // trusts the certificate
	pem         [2][]byte      // the certificate and its key
}

func startTLS(t *testing.T, name string, hosts ...string) *tlsServer {
	t.Helper()
	s := newCertificate(t, hosts...)
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{s.certificate}})
	must(t, err)
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	var running sync.WaitGroup
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, name+"\n"); err == nil {
			_, _ = io.Copy(c, c)
		}
	}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() }) // Lictor has ended by then, and its connections with it
	return s
}

// newCertificate returns a tlsServer that has only its certificate.
func newCertificate(t *testing.T, hosts ...string) *tlsServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: hosts, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	s := &tlsServer{pool: x509.NewCertPool(), pem: [2][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}}
	s.certificate, err = tls.X509KeyPair(s.pem[0], s.pem[1])
	must(t, err)
	s.pool.AppendCertsFromPEM(s.pem[0])
	return s
}

// connect makes a connection by the name of a server, whose certificate is verified.
func (s *tlsServer) connect(addr netip.AddrPort, name string) (*tls.Conn, error) {
	d := &net.Dialer{Timeout: patience}
	return tls.DialWithDialer(d, "tcp", addr.String(), &tls.Config{ServerName: name, RootCAs: s.pool})
}

func (s *tlsServer) mustConnect(t *testing.T, addr netip.AddrPort, name, greeting string) *tls.Conn {
	t.Helper()
	c, err := s.connect(addr, name)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	must(t, hears(c, greeting+"\n"))
	return c
}

// echoes sends a line over TLS and expects it back.
func echoes(c *tls.Conn, line string) error {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	return hears(c, line+"\n")
}

// TLS clients choose by name between services of one port. A reload changes the names while connections stay, and an
// upgrade hands the port over, also in the middle of a ClientHello.
func TestServicesShareAListenerBySNI(t *testing.T) {
	t.Parallel()
	db, web := startTLS(t, "db", "db.example.com", "new.example.com"), startTLS(t, "web", "web.example.com")
	plain := startEcho(t, "plain")
	at := freePort(t)
	sni := func(name string, s *tlsServer, names string) string {
		return serviceAt(name, at, "sni = "+names, static(s.addr))
	}
	before := sni("db", db, `["db.example.com"]`) + sni("web", web, `["*.example.com"]`)
	access := filepath.Join(t.TempDir(), "access.log")
	log := fmt.Sprintf("access_log {\n  path = %q\n}\n", access)
	d := found(t, log+before)
	open := db.mustConnect(t, at, "db.example.com", "db")
	web.mustConnect(t, at, "web.example.com", "web")
	if _, err := db.connect(at, "db.example.net"); err == nil {
		t.Error("a client with an unknown name was served")
	}
	awaitText(t, access, `"reason":"no_route"`)
	if code, out := d.command(t, "status"); code != 0 || strings.Count(out, at.String()) != 2 {
		t.Errorf("got %s, want two services at %s", out, at)
	}

	after := sni("db", db, `["db.example.com", "new.example.com"]`) + serviceAt("rest", at, endpoints(plain))
	d.configure(t, log+after)
	code, out := d.command(t, "plan", "-config", d.file)
	if code != 2 && code != 0 {
		t.Errorf("plan: exit code %d", code)
	}
	wantTexts(t, out, `~ service "db"`, `sni = ["db.example.com"] -> ["db.example.com", "new.example.com"]`,
		`- service "web"`, `+ service "rest"`)
	if code, out := d.command(t, "reload"); code != 0 {
		t.Errorf("reload: %s", out)
	}
	must(t, echoes(open, "after the reload"))
	db.mustConnect(t, at, "new.example.com", "db")
	rest := headed(t, at, "no TLS\n")
	rest.mustGreet(t, "plain")

	paused := &pausingConn{headed(t, at, "").TCPConn, make(chan struct{})}
	late := make(chan error, 1)
	go func() {
		c := tls.Client(paused, &tls.Config{ServerName: "db.example.com", RootCAs: db.pool})
		late <- errors.Join(hears(c, "db\n"), echoes(c, "served after all"))
	}()
	eventually(t, "a client that has sent half a ClientHello", func() error {
		if code, text := d.command(t, "connections"); code != 0 || !strings.Contains(text, "greeting") {
			return fmt.Errorf("got %s", text)
		}
		return nil
	})
	d.upgrade(t)
	must(t, echoes(open, "after the upgrade"))
	db.mustConnect(t, at, "db.example.com", "db")
	close(paused.goOn)
	must(t, testproc.Receive(t, "the answer to the late client", late))
}

// A pausingConn writes half of the first message, and the rest when goOn is closed.
type pausingConn struct {
	*net.TCPConn
	goOn chan struct{}
}

func (c *pausingConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b[:len(b)/2])
	<-c.goOn
	if err == nil {
		var more int
		more, err = c.TCPConn.Write(b[n:])
		n += more
	}
	return n, err
}

// A real PostgreSQL serves psql with verify-full over a listener that it shares by name. Clients without TLS get the
// service without sni, and an instance without TLS is not reached.
func TestPostgreSQLBySNI(t *testing.T) {
	t.Parallel()
	psql, err := exec.LookPath("psql")
	if err != nil {
		testproc.Cannot(t, "there is no psql", err)
	}
	db := newCertificate(t, "db.example.com")
	secure, insecure := startPostgreSQL(t, db, true), startPostgreSQL(t, db, false)
	at := freePort(t)
	l := runLictor(t, serviceAt("db", at, `sni = ["db.example.com"]`, static(secure))+
		serviceAt("bad", at, `sni = ["bad.example.com"]`, static(insecure))+serviceAt("rest", at, static(insecure)))
	root := filepath.Join(t.TempDir(), "root.pem")
	must(t, os.WriteFile(root, db.pem[0], 0o600))
	ask := func(host, more string) (string, error) {
		text := fmt.Sprintf("host=%s hostaddr=127.0.0.1 port=%d user=postgres dbname=postgres connect_timeout=30 %s",
			host, at.Port(), more)
		const query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
		out, err := exec.CommandContext(t.Context(), psql, "-AtX", text, "-c", query).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := ask("db.example.com", "sslmode=verify-full sslrootcert="+root); err != nil || out != "t" {
		t.Errorf("psql with verify-full: got %s, %v", out, err)
	}
	if out, err := ask("db.example.com", "sslmode=disable"); err != nil || out != "f" {
		t.Errorf("psql without TLS: got %s, %v", out, err)
	}
	if out, err := ask("bad.example.com", "sslmode=require"); err == nil {
		t.Errorf("psql reached a server without TLS: %s", out)
	}
	l.awaitMetrics(t, `lictor_clients_refused_total{reason="unreached",service="bad"} 1`,
		`lictor_dial_failures_total{cause="handshake",service="bad"} 1`)
	l.awaitLog(t, 0, func(e entry) bool { return strings.Contains(e.field("error"), "turn on ssl") })
}

// startPostgreSQL starts a PostgreSQL, with or without TLS.
func startPostgreSQL(t *testing.T, c *tlsServer, secure bool) netip.AddrPort {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		testproc.Cannot(t, "there is no PostgreSQL", os.ErrNotExist)
	}
	bin, dir, at := filepath.Dir(found[len(found)-1]), shortTempDir(t), freePort(t)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), c.pem[0], 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), c.pem[1], 0o600))
	if os.Geteuid() == 0 {
		must(t, exec.Command("chown", "-R", "postgres", dir).Run())
	}
	log := &testproc.Log{}
	data := filepath.Join(dir, "data")
	p, err := testpatroni.StartAsPostgres(dir, log, filepath.Join(bin, "initdb"), "-D", data, "-A", "trust",
		"-U", "postgres", "--no-sync")
	must(t, err)
	eventually(t, "initdb ends", func() error {
		if p.Running() {
			return errors.New("it runs")
		}
		return nil
	})
	args := []string{filepath.Join(bin, "postgres"), "-D", data, "-p", fmt.Sprint(at.Port()), "-F",
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + dir}
	if secure {
		args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(dir, "cert.pem"),
			"-c", "ssl_key_file="+filepath.Join(dir, "key.pem"))
	}
	p, err = testpatroni.StartAsPostgres(dir, log, args...)
	must(t, err)
	t.Cleanup(func() { p.Stop(syscall.SIGQUIT, time.Minute) })
	eventually(t, "PostgreSQL is ready", func() error {
		if !strings.Contains(log.String(), "ready to accept connections") {
			return fmt.Errorf("it says %s", log)
		}
		return nil
	})
	return at
}
