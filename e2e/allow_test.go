//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Only the clients that the configuration names use a service. Log, access log, status and metrics show the others, and
// the service is fine.
func TestOnlyAllowedClientsAreServed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without being asked")
	}
	web, dns := startEcho(t, "a"), startUDP(t, "b")
	access := filepath.Join(t.TempDir(), "access.log")
	config := func(rule string) string {
		return fmt.Sprintf("access_log {\n  path = %q\n}\n", access) + service("web", endpoints(web), rule) +
			service("dns", udp, endpoints(dns), rule)
	}
	l := runLictor(t, config(`allow = ["127.0.0.1"]`))
	open, client := mustConnect(t, l.addr(t, "web")), dialUDP(t, l.addr(t, "dns"))
	client.awaitAnswer(t, "b")
	refusedFrom(t, "127.0.0.2", l.addr(t, "web"))
	other, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)},
		net.UDPAddrFromAddrPort(l.addr(t, "dns")))
	must(t, err)
	defer func() { _ = other.Close() }()
	_, err = other.Write(who)
	must(t, err)
	l.awaitMetrics(t, `lictor_clients_refused_total{reason="not_allowed",service="web"} 1`,
		`lictor_clients_refused_total{reason="not_allowed",service="dns"} 1`,
		`lictor_service_state{service="web",state="fine"} 1`, `lictor_service_state{service="dns",state="fine"} 1`,
		`lictor_sessions_total{service="dns"} 1`)
	l.awaitAnswer(t, "status web", 0, "1 client: not_allowed 1")
	awaitText(t, access, `"by":"lictor","end":"not allowed","reason":"not_allowed"}`)
	refused := l.awaitLog(t, 0, func(e entry) bool { return e.field("@message") == "client refused" })
	if level, why := refused.field("@level"), refused.field("error"); level != "info" ||
		!strings.Contains(why, "allow") {
		t.Errorf("got the line %v", refused)
	}

	l.mustReload(t, config(`deny = ["127.0.0.1"]`))
	must(t, open.echo("still there"))
	refusedFrom(t, "127.0.0.1", l.addr(t, "web"))
	_, err = client.Write(who)
	must(t, err)
	awaitText(t, access, `"datagrams_up":1,"datagrams_down":1,"by":"lictor","end":"not allowed"}`)
	l.awaitMetrics(t, `lictor_clients_refused_total{reason="not_allowed",service="web"} 2`,
		`lictor_clients_refused_total{reason="not_allowed",service="dns"} 2`)
	l.mustReload(t, config(""))
	client.awaitAnswer(t, "b")
}

// refusedFrom connects from an address of this host, and expects a reset.
func refusedFrom(t *testing.T, source string, addr netip.AddrPort) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	conn, err := d.Dial("tcp", addr.String()) // the reset may come so early that the dial already reports it
	if err == nil {
		defer func() { _ = conn.Close() }()
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("from %s got %v, want a reset", source, err)
	}
}

// awaitText waits until a file contains all of want.
func awaitText(t *testing.T, path string, want ...string) {
	t.Helper()
	eventually(t, "text in "+path, func() error {
		text, err := os.ReadFile(path)
		for _, w := range want {
			if err == nil && !strings.Contains(string(text), w) {
				err = fmt.Errorf("no %s in:\n%s", w, text)
			}
		}
		return err
	})
}

// awaitMetrics waits until all the given lines are in the metrics of l.
func (l *lictor) awaitMetrics(t *testing.T, lines ...string) {
	t.Helper()
	eventually(t, "metrics", func() (err error) {
		text := l.metrics(t)
		for _, line := range lines {
			if !strings.Contains(text, line+"\n") {
				err = fmt.Errorf("no %s", line)
			}
		}
		return err
	})
}

// metrics returns the metrics of l.
func (l *lictor) metrics(t *testing.T) string {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.runtime, "admin.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://localhost/metrics")
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return string(text)
}
