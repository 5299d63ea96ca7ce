//go:build unix

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// This file has the clients of services that Lictor serves to the mesh: sidecars, clients with Consul's Go SDK, and
// clients of these tests that speak the mesh's TLS themselves.

// meshAt returns a mesh block with n ports in a row, and the first listener's address.
func meshAt(t testing.TB, n int) (block string, first netip.AddrPort) {
	t.Helper()
	const tries = 1000
	for range tries {
		first = freePort(t)
		last := first
		for range n - 1 {
			if next := freePort(t); next.Port() == last.Port()+1 {
				last = next
			}
		}
		if last.Port() == first.Port()+uint16(n-1) {
			return fmt.Sprintf("mesh {\n  bind = %q\n  ports = \"%d-%d\"\n}\n",
					first.Addr(), first.Port(), last.Port()),
				first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	panic("unreachable")
}

// expose returns an expose block. body holds the lines of the block.
func expose(name string, body ...string) string {
	return fmt.Sprintf("expose %q {\n  %s\n}\n", name, strings.Join(body, "\n  "))
}

// sidecars returns the healthy instances of a service in the mesh, by the IDs of their registrations as sidecars.
func (c *consul) sidecars(service string) (map[string]*api.ServiceEntry, error) {
	all, _, err := c.api.Health().Connect(service, "", true, nil)
	byID := map[string]*api.ServiceEntry{}
	for _, one := range all {
		byID[one.Service.ID] = one
	}
	return byID, err
}

// awaitSidecars waits until a service has n healthy instances in the mesh.
func (c *consul) awaitSidecars(t testing.TB, service string, n int) (all map[string]*api.ServiceEntry) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has %d instances in the mesh", service, n), func() (err error) {
		if all, err = c.sidecars(service); err == nil && len(all) != n {
			err = fmt.Errorf("%d, and the catalog has these: %s", len(all), c.checksOfSidecars(service))
		}
		return err
	})
	return all
}

// checksOfSidecars returns a line for each check of the instances of a service in the mesh.
func (c *consul) checksOfSidecars(service string) (lines string) {
	all, _, err := c.api.Health().Connect(service, "", false, nil)
	for _, one := range all {
		for _, check := range one.Checks {
			lines += fmt.Sprintf("\n%s, %s, %s: %s", one.Service.ID, check.CheckID, check.Status, check.Output)
		}
	}
	if err != nil {
		lines += "\n" + err.Error()
	}
	return lines
}

// addressOf returns where the mesh reaches an instance.
func addressOf(t testing.TB, e *api.ServiceEntry) netip.AddrPort {
	t.Helper()
	ip, err := netip.ParseAddr(e.Service.Address)
	must(t, err)
	return netip.AddrPortFrom(ip, uint16(e.Service.Port))
}

// as returns the configuration of a client that has the identity of a service, for servers of another service.
func (c *consul) as(t testing.TB, identity, server string) *tls.Config {
	t.Helper()
	leaf, _, err := c.api.Agent().ConnectCALeaf(identity, nil)
	must(t, err)
	pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	must(t, err)
	roots := c.roots(t)
	return &tls.Config{Certificates: []tls.Certificate{pair},
		InsecureSkipVerify: true, // a certificate of the mesh has no name of a host; VerifyConnection verifies it
		VerifyConnection:   func(s tls.ConnectionState) error { return isOf(s.PeerCertificates, roots, server) }}
}

// roots returns the authorities of the mesh.
func (c *consul) roots(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	roots, _, err := c.api.Agent().ConnectCARoots(nil)
	must(t, err)
	for _, r := range roots.Roots {
		pool.AppendCertsFromPEM([]byte(r.RootCertPEM))
	}
	return pool
}

// isOf returns an error unless a chain of certificates is of a service of the mesh.
func isOf(chain []*x509.Certificate, roots *x509.CertPool, service string) error {
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return err
	}
	if uris := chain[0].URIs; len(uris) != 1 || !strings.HasSuffix(uris[0].Path, "/svc/"+service) {
		return fmt.Errorf("the server is %v, not %s", uris, service)
	}
	return nil
}

// A meshClient is one connection to an instance with the TLS of the mesh. The instance has sent its name.
type meshClient struct {
	*tls.Conn
	reader *bufio.Reader
	name   string
}

// dialMesh is connect with TLS.
func dialMesh(ctx context.Context, addr netip.AddrPort, config *tls.Config) (*meshClient, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	c := &meshClient{Conn: conn.(*tls.Conn), reader: bufio.NewReader(conn)}
	if c.name, err = nameFrom(ctx, conn, c.reader); err != nil {
		return nil, err
	}
	return c, nil
}

// mustDialMesh is dialMesh, but fails the test on an error. The connection is closed when the test ends.
func mustDialMesh(t testing.TB, addr netip.AddrPort, config *tls.Config) *meshClient {
	t.Helper()
	c, err := dialMesh(t.Context(), addr, config)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echo sends a line, and returns an error if another line comes back.
func (c *meshClient) echo(line string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	if got, err := c.reader.ReadString('\n'); err != nil || got != line+"\n" {
		return fmt.Errorf("got %q back, want %q: %w", got, line, err)
	}
	return nil
}

// awaitReset waits until the connection is reset.
func (c *meshClient) awaitReset(t testing.TB) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// askMesh is ask with TLS.
func askMesh(ctx context.Context, addr netip.AddrPort, config *tls.Config) (string, error) {
	c, err := dialMesh(ctx, addr, config)
	if err != nil {
		return "", err
	}
	return c.name, c.Close()
}

// awaitServed waits until an instance serves a client with TLS.
func awaitServed(t testing.TB, addr netip.AddrPort, config *tls.Config, name string) {
	t.Helper()
	eventually(t, "served by "+name, func() error {
		got, err := askMesh(t.Context(), addr, config)
		if err == nil && got != name {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// awaitRefused waits until a client with TLS is refused.
func awaitRefused(t testing.TB, addr netip.AddrPort, config *tls.Config) {
	t.Helper()
	eventually(t, "refused", func() error {
		if name, err := askMesh(t.Context(), addr, config); err == nil {
			return fmt.Errorf("served by %q", name)
		}
		return nil
	})
}

// startUpstream runs `consul connect proxy` for local clients of a service, and returns where they connect.
func (c *consul) startUpstream(t testing.TB, identity, service string) netip.AddrPort {
	t.Helper()
	at, log := freePort(t), &testproc.Log{}
	cmd := exec.Command(consulBinary, "connect", "proxy", "-http-addr", c.HTTP, "-token", c.Token, "-service", identity,
		"-upstream", fmt.Sprintf("%s:%d", service, at.Port()))
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(p.Kill)
	eventually(t, "the sidecar of "+identity+" listens", func() error {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log.Tail(20))
		}
		return conn.Close()
	})
	return at
}

// askNative makes a client with Consul's Go SDK connect to a service, and returns what it prints.
func (c *consul) askNative(t testing.TB, identity, service string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testconsul.Program(t, "native"), "dial", identity, service)
	cmd.Env = append(environment(), "CONSUL_HTTP_ADDR="+c.HTTP, "CONSUL_HTTP_TOKEN="+c.Token)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
