//go:build unix

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// This file has the peers of Lictor in the mesh: sidecars, services that speak the mesh's TLS themselves, and servers
// of these tests that do as such a peer, or as it must not.

// sidecarOf makes a registration one of a sidecar. A filter of a resolver sees the meta of the sidecar.
func sidecarOf(service string) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) {
		r.Kind = api.ServiceKindConnectProxy
		r.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: service}
	}
}

// native makes a registration one of a service that speaks the mesh's TLS itself.
func native(r *api.AgentServiceRegistration) { r.Connect = &api.AgentServiceConnect{Native: true} }

// startSidecar registers an instance of a service, and runs `consul connect proxy` in front of it.
func (c *consul) startSidecar(t *testing.T, service string, i *instance) {
	t.Helper()
	at, id := freePort(t), service+"-"+i.name
	c.register(t, service, id, i.addr)
	c.register(t, service+"-sidecar", id+"-sidecar", at, func(r *api.AgentServiceRegistration) {
		r.Kind = api.ServiceKindConnectProxy
		r.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, DestinationServiceID: id,
			LocalServiceAddress: i.addr.Addr().String(), LocalServicePort: int(i.addr.Port()),
			Config: map[string]any{"bind_address": "127.0.0.1"}}
	})
	log := &testproc.Log{}
	cmd := exec.Command(consulBinary, "connect", "proxy", "-sidecar-for", id, "-http-addr", c.HTTP, "-token", c.Token)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(p.Kill)
	eventually(t, "the sidecar of "+id+" serves", func() error {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log.Tail(20))
		}
		return conn.Close()
	})
}

// startNative runs a service with Consul's Go SDK, and registers it.
func (c *consul) startNative(t *testing.T, service, name string) {
	t.Helper()
	log := &testproc.Log{}
	cmd := exec.Command(testconsul.Program(t, "native"), service, name)
	cmd.Env = append(environment(), "CONSUL_HTTP_ADDR="+c.HTTP, "CONSUL_HTTP_TOKEN="+c.Token)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(p.Kill)
	var at netip.AddrPort
	eventually(t, "the native service serves", func() (err error) {
		lines := log.Lines()
		if len(lines) == 0 {
			return errors.New("it says nothing")
		}
		at, err = netip.ParseAddrPort(lines[len(lines)-1])
		return err
	})
	c.register(t, service, service+"-"+name, at, native)
}

// A meshServer is an instance that speaks the mesh's TLS, with certificates from the agent. It greets each client with
// its name, and then echoes. It asks the agent for each handshake, and uses what it had if the agent does not answer.
// It lets in every client of the mesh, whatever the intentions are.
type meshServer struct {
	addr  netip.AddrPort
	name  string
	agent *api.Agent
	// change, if not nil, changes the configuration for a handshake.
	change func(*tls.Config)
	// byName lets the server choose the certificate by the server name, as a gateway does. It refuses other names.
	byName map[string]string

	running sync.WaitGroup
	mu      sync.Mutex
	kept    map[string]*tls.Config // by service
	clients []string               // the identities of clients, sorted
	plain   []string               // what came instead of a handshake
	open    map[*net.TCPConn]bool
	broken  error // how the last connection ended; nil: in order
}

// startMeshServer starts a server with the certificate of a service.
func (c *consul) startMeshServer(t *testing.T, service, name string, change func(*tls.Config)) *meshServer {
	t.Helper()
	return c.startMeshServerByName(t, map[string]string{"": service}, name, change)
}

// startMeshServerByName starts a server with several services. The keys of byName are the prefixes of server names.
func (c *consul) startMeshServerByName(t *testing.T, byName map[string]string, name string,
	change func(*tls.Config)) *meshServer {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	s := &meshServer{addr: l.Addr().(*net.TCPAddr).AddrPort(), name: name, agent: c.api.Agent(), change: change,
		byName: byName, kept: map[string]*tls.Config{}, open: map[*net.TCPConn]bool{}}
	t.Cleanup(func() { _ = l.Close(); s.running.Wait() })
	s.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(conn.(*net.TCPConn)) })
		}
	})
	return s
}

func (s *meshServer) serve(raw *net.TCPConn) {
	defer raw.Close()
	first := &firstBytes{TCPConn: raw}
	conn := tls.Server(first, &tls.Config{GetConfigForClient: s.config})
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := conn.Handshake(); err != nil {
		if len(first.seen) > 0 && first.seen[0] != 22 { // a handshake (RFC 8446, 5.1)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.plain = append(s.plain, string(first.seen))
		}
		return
	}
	_ = conn.SetDeadline(time.Time{})
	s.begin(raw, conn.ConnectionState())
	_, err := io.WriteString(conn, s.name+"\n")
	if err == nil {
		_, err = io.Copy(conn, conn)
	}
	s.mu.Lock()
	delete(s.open, raw)
	s.broken = err
	s.mu.Unlock()
	_ = conn.CloseWrite()
	_, _ = io.Copy(io.Discard, raw) // so that the end is no reset
}

// firstBytes keeps what the first read of a connection returns.
type firstBytes struct {
	*net.TCPConn
	seen []byte
}

func (c *firstBytes) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if c.seen == nil {
		c.seen = slices.Clone(b[:n])
	}
	return n, err
}

// begin keeps a connection, and who its client is.
func (s *meshServer) begin(raw *net.TCPConn, state tls.ConnectionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[raw] = true
	for _, uri := range state.PeerCertificates[0].URIs {
		if at, found := slices.BinarySearch(s.clients, uri.Path); !found {
			s.clients = slices.Insert(s.clients, at, uri.Path)
		}
	}
}

// config returns the configuration for the handshake of a client.
func (s *meshServer) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	service := ""
	for prefix, of := range s.byName {
		if strings.HasPrefix(hello.ServerName, prefix) {
			service = of
		}
	}
	if service == "" {
		return nil, fmt.Errorf("no certificate for %q", hello.ServerName)
	}
	config, err := meshConfig(s.agent, service)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if config = s.kept[service]; config == nil {
			return nil, err
		}
		return config, nil
	}
	s.kept[service] = config
	if s.change != nil {
		s.change(config)
	}
	return config, nil
}

// meshConfig returns the configuration of a server with the certificate of a service. The server wants a certificate
// of the mesh from clients.
func meshConfig(agent *api.Agent, service string) (*tls.Config, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := (&api.QueryOptions{}).WithContext(ctx)
	roots, _, err := agent.ConnectCARoots(options)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, r := range roots.Roots {
		pool.AppendCertsFromPEM([]byte(r.RootCertPEM))
	}
	leaf, _, err := agent.ConnectCALeaf(service, options)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: pool}, nil
}

// reset resets all open connections.
func (s *meshServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
}

// lastEnd returns how the last connection that ended has ended.
func (s *meshServer) lastEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// wantClients fails the test if the server has had other clients, or ones without TLS.
func (s *meshServer) wantClients(t *testing.T, services ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var want []string
	for _, name := range services {
		want = append(want, "/ns/default/dc/dc1/svc/"+name)
	}
	if !slices.Equal(s.clients, want) {
		t.Errorf("%s has had the clients %v, want %v", s.name, s.clients, want)
	}
	if len(s.plain) > 0 {
		t.Errorf("%s has had clients without TLS: %q", s.name, s.plain)
	}
}
