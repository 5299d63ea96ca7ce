//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// With send_proxy, the service behind a sidecar reads a PROXY header with the address of the client. The checks of
// Lictor bring a header too.
func TestMeshSendsTheHeaderInsideTLS(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	app, headers := startHeaderReader(t)
	at := freePort(t)
	proxy, err := testproc.Start(exec.Command(consulBinary, "connect", "proxy", "-http-addr", c.HTTP, "-service",
		"billing", "-service-addr", app, "-listen", at.String()))
	must(t, err)
	t.Cleanup(proxy.Kill)
	c.register(t, "billing-sidecar", "billing-sidecar", at, func(r *api.AgentServiceRegistration) {
		r.Kind = api.ServiceKindConnectProxy
		r.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: "billing"}
	})
	l := runLictor(t, consulBlock(c)+service("billing", `send_proxy = "v1"`, `mesh { as = "web" }`)+
		service("checked", `consul { service = "billing" }`, `send_proxy = "v1"`, `mesh { as = "web" }`,
			`check { interval = "100ms" }`))
	var client net.Conn
	eventually(t, "an answer through the sidecar", func() (err error) {
		if client, err = net.Dial("tcp", l.addr(t, "billing").String()); err != nil {
			return err
		}
		_, err = io.ReadFull(client, make([]byte, 6))
		if err != nil {
			_ = client.Close()
		}
		return err
	})
	defer func() { _ = client.Close() }()
	addr := netip.MustParseAddrPort(client.LocalAddr().String())
	awaitHeader(t, headers, fmt.Sprintf(" %d %d\r\n", addr.Port(), l.addr(t, "billing").Port()))
	awaitHeader(t, headers, fmt.Sprintf(" %d\r\n", at.Port())) // of a check, which has the addresses of its connection
}

// awaitHeader waits for a header with this end. Headers of checks may come before it.
func awaitHeader(t *testing.T, headers <-chan string, end string) {
	t.Helper()
	const most = 1000
	for range most {
		if got := testproc.Receive(t, "a header with "+end, headers); strings.HasSuffix(got, end) {
			return
		}
	}
	t.Fatalf("none of %d headers ends with %q", most, end)
}

// startHeaderReader starts a server that reads a PROXY header of version 1 from each client, tells it, and greets.
func startHeaderReader(t *testing.T) (address string, headers <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	told := make(chan string, 1000)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				line, err := bufio.NewReader(conn).ReadString('\n')
				if err != nil {
					return
				}
				select {
				case told <- line:
				default: // nobody reads any more
				}
				_, _ = io.WriteString(conn, "hello\n")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return l.Addr().String(), told
}
