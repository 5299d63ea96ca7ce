//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// An operator is served whatever a crowd of connections does to the admin API. The crowd stays connected: the API's
// timeouts are longer than the operator waits.
func TestOperatorIsServedBesideACrowd(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	const crowd, enough = 700, 30 * time.Second
	needDescriptors(t, crowd+100)
	token := tokenFile(t, "right")
	web := service("web", endpoints(startEcho(t, "a")))
	tcp := fmt.Sprintf("admin {\n  listen = \"127.0.0.1:0\"\n  token_file = %q\n}\n", token)
	const probe = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for _, tt := range []struct{ name, admin, say string }{
		{"silent", tcp, ""},
		{"half a header", tcp, probe[:20]},
		{"idle after a probe", tcp, probe},
		{"probes, one behind the other", tcp, strings.Repeat(probe, 50)},
		{"streams without a token", tcp, strings.Replace(probe, "/healthz", "/v1/watch", 1)},
		{"half a body", tcp, strings.Replace(probe, "\r\n\r\n", "\r\nContent-Length: 60000\r\n\r\n{", 1)},
		{"idle over the socket", "", probe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := runLictor(t, tt.admin+web)
			address := l.adminAddress(t)
			for range crowd {
				_, _ = dialAdmin(t, address).Write([]byte(tt.say)) // it fails if Lictor has refused the connection
			}
			ctx, cancel := context.WithTimeout(t.Context(), enough)
			defer cancel()
			cmd := exec.CommandContext(ctx, lictorPath(t), "status", "-admin", address, "-token-file", token)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ready") {
				t.Errorf("got %v:\n%s", err, out)
			}
		})
	}
}

// adminAddress returns the address of the admin API of l, in the form that the commands take.
func (l *lictor) adminAddress(t testing.TB) string {
	t.Helper()
	return l.awaitLog(t, 0, func(e entry) bool { return e.field("@message") == "admin API" }).field("listen")
}

// dialAdmin connects to the admin API at an address in the form of the log. The connection ends with the test.
func dialAdmin(t testing.TB, address string) net.Conn {
	t.Helper()
	network := "tcp"
	if path, is := strings.CutPrefix(address, "unix://"); is {
		network, address = "unix", path
	}
	conn, err := net.DialTimeout(network, address, patience)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// With few descriptors, crowds at the admin API and at a service leave enough descriptors for Consul and for operators.
func TestACrowdLeavesDescriptorsToConsul(t *testing.T) {
	t.Parallel()
	const descriptors, crowd = 256, 300
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	limit := fmt.Sprintf(`ulimit -n %d && exec "$@"`, descriptors)
	l := startLictor(t, consulBlock(c)+service("web"), "sh", "-c", limit, "sh")
	l.awaitReady(t)
	flood(t, l.addr(t, "web"), crowd)
	for range crowd {
		// This fails if Lictor has refused the connection.
		_, _ = dialAdmin(t, l.adminAddress(t)).Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	}
	c.Kill() // so that Lictor must connect again; the agent forgets all registrations
	must(t, c.Restart(t.Context()))
	c.register(t, "web", "b", startEcho(t, "b").addr)
	l.awaitAnswer(t, "explain web", 0, "test/b at")
	if complaint := "too many open files"; strings.Contains(l.stderr.String(), complaint) {
		t.Errorf("lictor says %q", complaint)
	}
}
