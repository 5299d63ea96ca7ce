package proxy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// program returns the path of a program, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testproc.Cannot(t, "run "+name, err)
	}
	return path
}

// pemFiles writes the certificate of the suite's authority, and certificate and key of its servers.
func pemFiles(t *testing.T) (ca, cert, key string) {
	t.Helper()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(testCert().PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", testCA().cert.Raw),
		write("cert.pem", "CERTIFICATE", testCert().Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}

// opensslClient starts openssl s_client and returns its input and its output. The test ends it.
func opensslClient(t *testing.T, at netip.AddrPort, args ...string) (io.WriteCloser, *testproc.Log) {
	t.Helper()
	ca, _, _ := pemFiles(t)
	cmd := exec.Command(program(t, "openssl"), append([]string{"s_client", "-connect", at.String(), "-CAfile", ca,
		"-verify_return_error", "-servername", "lictor.test", "-verify_hostname", "lictor.test"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &testproc.Log{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return in, out
}

func awaitText(t *testing.T, out *testproc.Log, text string) {
	t.Helper()
	eventually(t, func() error {
		if !strings.Contains(out.String(), text) {
			return fmt.Errorf("no %q in the output:\n%s", text, out.String())
		}
		return nil
	})
}

// OpenSSL's client may change its keys at any time, and ask for new ones of Lictor.
func TestTLSKeyUpdatesOfOpenSSL(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, echo))
		in, out := opensslClient(t, at, "-tls1_3")
		for i := range 30 {
			fmt.Fprintln(in, "K") // a command only if it comes alone
			eventually(t, equals("key updates", func() int { return strings.Count(out.String(), "KEYUPDATE") }, i+1))
			if i%10 == 0 { // crypto/tls allows 16 of them without data between
				text := fmt.Sprintf("text %d", i)
				fmt.Fprintln(in, text)
				awaitText(t, out, text)
			}
		}
	})
}

// A client that only changes its keys, and asks Lictor to do the same, is ended by an alert.
func TestTLSStormOfKeyUpdates(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, echo))
		in, out := opensslClient(t, at, "-tls1_3")
		const alert = "unexpected message"
		updates := func() int { return strings.Count(out.String(), "KEYUPDATE") }
		for i := 0; i < 100 && !strings.Contains(out.String(), alert); i++ {
			fmt.Fprintln(in, "K") // a command only if it comes alone
			eventually(t, func() error {
				if updates() == i && !strings.Contains(out.String(), alert) {
					return fmt.Errorf("after %d updates: neither one more nor an alert", i)
				}
				return nil
			})
		}
		if n := updates(); n < 2 || n > 50 {
			t.Errorf("the connection has ended after %d updates", n)
		}
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// Renegotiation is refused by an alert, and the connection ends.
func TestTLSRenegotiationOfOpenSSL(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0))}, tcpServer(t, echo))
		in, out := opensslClient(t, at, "-tls1_2")
		fmt.Fprintln(in, "before")
		awaitText(t, out, "before\n")
		fmt.Fprintln(in, "R")
		awaitText(t, out, "unexpected message")
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// OpenSSL's server is an endpoint like any other.
func TestTLSServerOfOpenSSL(t *testing.T) {
	_, cert, key := pemFiles(t)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				server := freePort(t, TCP)
				// -rev sends each line back, reversed.
				cmd := exec.Command(program(t, "openssl"), "s_server", "-accept", server.String(),
					"-cert", cert, "-key", key, version, "-rev", "-quiet")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					cmd.Process.Kill()
					_ = cmd.Wait()
				})
				eventually(t, func() error {
					c, err := net.Dial("tcp", server.String())
					if err == nil {
						c.Close()
					}
					return err
				})
				at := h.serve(Service{EndpointTLS: endpointTLS(clientConfig(0))}, server)
				c := dialTCP(t, at)
				io.WriteString(c, "hello\n")
				got := make([]byte, 6)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "olleh\n" {
					t.Errorf("got %q, %v, want the line reversed", got, err)
				}
			})
		})
	}
}

// curl gets an answer over TLS, and its end.
func TestTLSClientCurl(t *testing.T) {
	ca, _, _ := pemFiles(t)
	answer := bytes.Repeat([]byte("answer"), 100<<10)
	for _, version := range [][]string{{"--tls-max", "1.2"}, {"--tlsv1.3"}} {
		forEachEngine(t, func(t *testing.T, h *house) {
			at := h.serve(Service{AcceptTLS: acceptTLS(serverConfig(0)), EndpointTLS: endpointTLS(clientConfig(0))},
				tlsServer(t, serverConfig(0), func(c testConn) {
					c.Read(make([]byte, 4096))
					io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n") // the end of the connection ends the body
					c.Write(answer)
				}))
			url := fmt.Sprintf("https://lictor.test:%d/", at.Port())
			args := append([]string{"-sS", "--noproxy", "*", "--max-time", "60", "--cacert", ca, "--resolve",
				fmt.Sprintf("lictor.test:%d:127.0.0.1", at.Port()), url}, version...)
			out, err := exec.Command(program(t, "curl"), args...).Output()
			if err != nil || !bytes.Equal(out, answer) {
				t.Errorf("got %d bytes, %v, want %d", len(out), err, len(answer))
			}
		})
	}
}
