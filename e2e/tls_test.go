//go:build unix

package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A tlsCase has an authority and the files of a service with TLS.
type tlsCase struct {
	ca                        *testcert.Authority
	dir, caFile, cert, key    string
	client                    testcert.Certificate
	clientCert, clientKeyFile string
}

func newTLSCase(t *testing.T) *tlsCase {
	t.Helper()
	dir, ca := t.TempDir(), testcert.NewAuthority(t, "root")
	c := &tlsCase{ca: ca, dir: dir, caFile: ca.WriteFile(t, dir, "ca.pem")}
	c.cert, c.key = c.issue(t, "first").Write(t, dir, "web")
	c.client = ca.Issue(t, testcert.Request{CommonName: "app", Names: []string{"app.test"}})
	c.clientCert, c.clientKeyFile = c.client.Write(t, dir, "client")
	return c
}

// issue returns a certificate for web.test and 127.0.0.1, with a common name that tells it from others.
func (c *tlsCase) issue(t *testing.T, name string) testcert.Certificate {
	t.Helper()
	return c.ca.Issue(t, testcert.Request{CommonName: name, Names: []string{"web.test", "127.0.0.1"}})
}

// tls returns the tls block of a service.
func (c *tlsCase) tls(more string) string {
	return fmt.Sprintf("tls {\n cert_file = %q\n key_file = %q\n %s\n}", c.cert, c.key, more)
}

// dial connects with TLS, and reads the name of the instance that serves. The client shows a certificate if it is asked
// for one.
func (c *tlsCase) dial(t *testing.T, addr netip.AddrPort) (conn *tls.Conn, instance string, err error) {
	t.Helper()
	pair := c.client.TLS(t)
	config := &tls.Config{ServerName: "web.test", RootCAs: c.ca.Pool(), Certificates: []tls.Certificate{pair}}
	if conn, err = tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr.String(), config); err != nil {
		return nil, "", err
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return conn, strings.TrimSpace(line), err
}

// Clients with certificates are served over TLS, and it shows who they are.
func TestClientsSpeakTLS(t *testing.T) {
	t.Parallel()
	c, a := newTLSCase(t), startEcho(t, "a")
	access := filepath.Join(c.dir, "access.log")
	l := runLictor(t, fmt.Sprintf("access_log {\n path = %q\n format = \"json\"\n}\n", access)+
		service("web", c.tls(fmt.Sprintf("client_ca_file = %q", c.caFile)), endpoints(a)))
	conn, name, err := c.dial(t, l.addr(t, "web"))
	if err != nil || name != "a" {
		t.Fatalf("got %q, %v", name, err)
	}
	l.awaitAnswer(t, "connections -json", 0, `"version": "1.3"`, `"sni": "web.test"`, `"client_subject": "CN=app"`,
		`"app.test"`)
	l.awaitAnswer(t, "connections", 0, "CN=app")
	must(t, conn.CloseWrite())
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the half-close", rest, err)
	}
	must(t, conn.Close())
	awaitText(t, access, `"tls":"1.3","sni":"web.test","client_subject":"CN=app","client_names":["app.test"]`,
		`"end":"client closed"`)

	stranger := &tls.Config{ServerName: "web.test", RootCAs: c.ca.Pool()}
	if conn, err := tls.Dial("tcp", l.addr(t, "web").String(), stranger); err == nil {
		if _, err = conn.Read(make([]byte, 1)); err == nil {
			t.Error("a client without a certificate was served")
		}
		_ = conn.Close()
	}
	l.awaitMetrics(t, `lictor_clients_refused_total{reason="handshake",service="web"} 1`)
	l.awaitAnswer(t, "status", 0, "web")
	if _, text := l.ask(t, "status", "-json"); strings.Contains(text, "PRIVATE KEY") {
		t.Error("the status has a key")
	}
}

// openssl and curl, which are not written in Go, are served too.
func TestOtherProgramsSpeakTLS(t *testing.T) {
	t.Parallel()
	c, a := newTLSCase(t), startEcho(t, "a")
	l := runLictor(t, service("web", c.tls(""), endpoints(a)))
	addr := l.addr(t, "web")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		cmd := exec.Command("openssl", "s_client", "-connect", addr.String(), "-servername", "web.test",
			"-CAfile", c.caFile, "-verify_return_error", "-verify_hostname", "web.test", "-quiet", version)
		if cmd.Err != nil {
			testproc.Cannot(t, "openssl is missing", cmd.Err)
		}
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		reader := bufio.NewReader(out)
		if line, err := reader.ReadString('\n'); err != nil || line != "a\n" {
			t.Errorf("%s: got %q, %v", version, line, err)
		}
		_, _ = io.WriteString(in, "hello\n")
		if line, err := reader.ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("%s: got %q, %v", version, line, err)
		}
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// Certificates are replaced while clients come and go: no handshake fails, and bad files change nothing but the state.
func TestCertificatesAreReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	c, a := newTLSCase(t), startEcho(t, "a")
	l := runLictor(t, service("web", c.tls(""), endpoints(a)))
	addr := l.addr(t, "web")
	var failed atomic.Int64
	var seen sync.Map
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, name, err := c.dial(t, addr)
				if err != nil || name != "a" {
					failed.Add(1)
					t.Errorf("got %q, %v", name, err)
					return
				}
				seen.Store(conn.ConnectionState().PeerCertificates[0].Subject.CommonName, true)
				_ = conn.Close()
			}
		})
	}
	serves := func(name string) {
		t.Helper()
		eventually(t, "certificate "+name, func() error {
			if _, is := seen.Load(name); !is {
				return fmt.Errorf("no client has seen it")
			}
			return nil
		})
	}
	serves("first")
	cert, key := c.issue(t, "renamed").Write(t, t.TempDir(), "next")
	must(t, os.Rename(cert, c.cert))
	must(t, os.Rename(key, c.key))
	serves("renamed")
	cert, key = c.issue(t, "linked").Write(t, t.TempDir(), "next")
	for from, to := range map[string]string{cert: c.cert, key: c.key} {
		must(t, os.Symlink(from, to+".new"))
		must(t, os.Rename(to+".new", to))
	}
	serves("linked")
	must(t, os.WriteFile(cert, []byte("no certificate"), 0o600))
	l.awaitMetrics(t, fmt.Sprintf(`lictor_certificate_state{file=%q,service="web",state="unusable"} 1`, c.cert),
		`lictor_service_state{service="web",state="degraded"} 1`)
	l.awaitAnswer(t, "status", 0, "degraded")
	l.awaitAnswer(t, "explain web", 0, c.cert)
	c.ca.Issue(t, testcert.Request{CommonName: "soon", Names: []string{"web.test"}, From: time.Now().Add(-time.Hour),
		To: time.Now().Add(5 * time.Minute)}).Write(t, filepath.Dir(cert), "next")
	serves("soon")
	l.awaitMetrics(t, fmt.Sprintf(`lictor_certificate_state{file=%q,service="web",state="expiring"} 1`, c.cert))
	close(stop)
	clients.Wait()
	l.awaitAnswer(t, "events", 0, "new connections use", "cannot be used", "expires soon")
}

// An instance is verified, and one with a bad certificate is passed over, with its cause.
func TestInstancesSpeakTLS(t *testing.T) {
	t.Parallel()
	c := newTLSCase(t)
	good := startTLSInstance(t, "good", c.issue(t, "good"))
	other := testcert.NewAuthority(t, "other").Issue(t, testcert.Request{Names: []string{"web.test"}})
	bad := startTLSInstance(t, "bad", other)
	named := fmt.Sprintf("endpoint_tls {\n ca_file = %q\n server_name = \"web.test\"\n}", c.caFile)
	l := runLictor(t, service("web", named, static(bad, good))+
		service("both", c.tls(""), fmt.Sprintf("endpoint_tls {\n ca_file = %q\n}", c.caFile), static(good)))
	for range 4 {
		client := mustConnect(t, l.addr(t, "web"))
		if client.name != "good" {
			t.Errorf("served by %s", client.name)
		}
		must(t, client.echo("hello"))
	}
	l.awaitAnswer(t, "explain web", 0, "handshake", "the last TLS handshake failed: ", "x509: ")
	if n := l.metric(t, `lictor_dial_failures_total{cause="handshake",service="web"}`); n < 1 {
		t.Errorf("%d failed handshakes are counted", n)
	}
	if _, name, err := c.dial(t, l.addr(t, "both")); err != nil || name != "good" {
		t.Errorf("got %q, %v", name, err)
	}
}

// With send_proxy an instance learns which certificate the client has.
func TestInstancesKnowTheCertificatesOfClients(t *testing.T) {
	t.Parallel()
	c := newTLSCase(t)
	headers := make(chan string, 1)
	a := startTCP(t, "a", func(conn *net.TCPConn) error {
		header := make([]byte, 16)
		if _, err := io.ReadFull(conn, header); err != nil {
			return err
		}
		rest := make([]byte, binary.BigEndian.Uint16(header[14:]))
		_, err := io.ReadFull(conn, rest)
		headers <- string(rest)
		return errors.Join(err, echo(conn))
	})
	l := runLictor(t, service("web", c.tls(fmt.Sprintf("client_ca_file = %q", c.caFile)), `send_proxy = "v2"`,
		endpoints(a)))
	if _, name, err := c.dial(t, l.addr(t, "web")); err != nil || name != "a" {
		t.Fatalf("got %q, %v", name, err)
	}
	header := testproc.Receive(t, "the PROXY header", headers)
	for _, want := range []string{"\x21\x00\x07TLSv1.3", "\x22\x00\x03app", "\x02\x00\x08web.test"} {
		if !strings.Contains(header, want) {
			t.Errorf("no %q in the header %q", want, header)
		}
	}
}

// startTLSInstance starts an instance that speaks TLS, and then does what the instances of startEcho do.
func startTLSInstance(t *testing.T, name string, c testcert.Certificate) netip.AddrPort {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.TLS(t)}})
	must(t, err)
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := io.WriteString(conn, name+"\n"); err == nil {
					_, _ = io.Copy(conn, conn)
				}
			})
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// An upgrade leaves connections with TLS to the process that has them, and clients that come meanwhile are served.
func TestUpgradeServesClientsWithTLS(t *testing.T) {
	t.Parallel()
	c, a := newTLSCase(t), startEcho(t, "a")
	d := found(t, service("web", c.tls(""), endpoints(a)))
	addr := d.addr(t, "web")
	conn, _, err := c.dial(t, addr)
	must(t, err)
	load := newCrowd(t)
	load.add("client", func(int) error {
		conn, name, err := c.dial(t, addr)
		if err == nil && name != "a" {
			err = fmt.Errorf("got %q", name)
		}
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
		return err
	})
	for range 2 {
		d.upgrade(t)
		load.getOn(2)
	}
	load.end()
	if _, err = io.WriteString(conn, "still there?\n"); err == nil {
		_, err = io.ReadFull(conn, make([]byte, len("still there?\n")))
	}
	if err != nil {
		t.Errorf("the connection of the former process: %v", err)
	}
}
