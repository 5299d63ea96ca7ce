//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// believing has a block for services whose clients are proxies on this host.
const believing = `accept_proxy { from = ["127.0.0.0/8"] }`

// relaysTo returns a service that sends each instance a PROXY header.
func relaysTo(name, version string, to netip.AddrPort, body ...string) string {
	return service(name, append(body, fmt.Sprintf("send_proxy = %q", version), static(to))...)
}

// mustConnectFrom is mustConnect from an address of this host.
func mustConnectFrom(t *testing.T, source netip.Addr, addr netip.AddrPort) *client {
	t.Helper()
	c, err := connectFrom(source, addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func connectFrom(source netip.Addr, addr netip.AddrPort) (*client, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Timeout: patience}
	conn, err := d.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{TCPConn: conn.(*net.TCPConn), reader: bufio.NewReader(conn)}
	c.name, err = c.reader.ReadString('\n')
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.name = strings.TrimSuffix(c.name, "\n")
	return c, conn.SetDeadline(time.Time{})
}

// addresses returns n addresses of this host, 127.0.0.2 and the next ones.
func addresses(t *testing.T, n int) []netip.Addr {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 without being asked")
	}
	all := []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	for len(all) < n {
		all = append(all, all[len(all)-1].Next())
	}
	return all
}

// Behind another Lictor that sends PROXY headers, the real client counts for everything. The headers do not count as
// bytes of clients, and the other Lictor's checks refuse nobody.
func TestTheClientIsKnownBehindTwoProxies(t *testing.T) {
	t.Parallel()
	clients := addresses(t, 20)
	a, b := startEcho(t, "a"), startEcho(t, "b")
	access := filepath.Join(t.TempDir(), "access.log")
	inner := runLictor(t, fmt.Sprintf("access_log {\n  path = %q\n}\n", access)+
		service("plain", believing, endpoints(a), `deny = ["127.0.0.9"]`)+
		service("hash", believing, endpoints(a, b), `balance = "source_hash"`)+
		service("sticky", believing, endpoints(a, b), `sticky = "1h"`)+
		service("one", believing, endpoints(a), "max_connections_per_client = 1"))
	check := `check { interval = "20ms" }`
	outer := runLictor(t, relaysTo("plain", "v1", inner.addr(t, "plain"), check)+
		relaysTo("hash", "v2", inner.addr(t, "hash"), check)+relaysTo("sticky", "v2", inner.addr(t, "sticky"))+
		relaysTo("one", "v2", inner.addr(t, "one")))

	c := mustConnectFrom(t, clients[0], outer.addr(t, "plain"))
	must(t, c.echo("hello"))
	inner.awaitAnswer(t, "connections plain", 0, c.LocalAddr().String())
	must(t, c.Close())
	awaitText(t, access, fmt.Sprintf(`"client":"%s","endpoint":"%s"`, c.LocalAddr(), a.addr))
	awaitText(t, access, `"up":6,"down":8,"by":"client"`) // "hello\n", and "a\nhello\n"
	refusedFrom(t, "127.0.0.9", outer.addr(t, "plain"))
	inner.awaitMetrics(t, `lictor_clients_refused_total{reason="not_allowed",service="plain"} 1`)

	for _, name := range []string{"hash", "sticky"} {
		served := map[string]int{}
		for _, source := range clients {
			first := mustConnectFrom(t, source, outer.addr(t, name)).name
			for range 2 {
				if again := mustConnectFrom(t, source, outer.addr(t, name)).name; again != first {
					t.Errorf("%s: %s was served by %s and %s", name, source, first, again)
				}
			}
			served[first]++
		}
		if len(served) != 2 {
			t.Errorf("%s: got %v, want clients at each instance", name, served)
		}
	}

	must(t, mustConnectFrom(t, clients[0], outer.addr(t, "one")).echo("first"))
	must(t, mustConnectFrom(t, clients[1], outer.addr(t, "one")).echo("other"))
	refusedFrom(t, clients[0].String(), outer.addr(t, "one"))
	inner.awaitMetrics(t, `lictor_clients_refused_total{reason="per_client",service="one"} 1`)

	checks := func() int { return inner.metric(t, `lictor_connections_total{service="hash"}`) }
	before := checks()
	eventually(t, "10 more checks", func() error {
		if n := checks() - before; n < 10 {
			return fmt.Errorf("there were %d", n)
		}
		return nil
	})
	for _, name := range []string{"plain", "hash"} {
		inner.awaitMetrics(t, fmt.Sprintf(`lictor_clients_refused_total{reason="proxy_header",service=%q} 0`, name),
			fmt.Sprintf(`lictor_service_state{service=%q,state="fine"} 1`, name))
	}
	outer.awaitAnswer(t, "explain hash", 0, "1 of 1 known endpoint gets clients")
}

// A reload begins or ends the use of PROXY headers for new connections. Open connections go on.
func TestReloadBeginsAndEndsPROXYHeaders(t *testing.T) {
	t.Parallel()
	source := addresses(t, 1)[0]
	a := startEcho(t, "a")
	at := freePort(t)
	inner := func(lines ...string) string { return serviceAt("web", at, append(lines, endpoints(a))...) }
	front := freePort(t)
	outer := func(lines ...string) string { return serviceAt("web", front, append(lines, static(at))...) }
	in := runLictor(t, inner())
	out := runLictor(t, outer())
	var open []*client
	connectAs := func(want string) {
		t.Helper()
		c := mustConnectFrom(t, source, front)
		if want == "" {
			want = c.LocalAddr().String()
		}
		in.awaitAnswer(t, "connections web", 0, want)
		open = append(open, c)
		for _, c := range open {
			must(t, c.echo("still there"))
		}
	}
	connectAs("127.0.0.1:")
	in.mustReload(t, inner(believing))
	for _, version := range []string{"v1", "v2"} {
		out.mustReload(t, outer(fmt.Sprintf("send_proxy = %q", version)))
		connectAs("")
	}
	in.mustReload(t, inner(`accept_proxy { from = ["192.0.2.1"] }`))
	refusedFrom(t, source.String(), front)
	in.mustReload(t, inner())
	out.mustReload(t, outer())
	connectAs("127.0.0.1:")
	if code, text := in.ask(t, "connections", "web"); code != 0 || strings.Count(text, source.String()+":") != 2 {
		t.Errorf("got two others than those that came with headers:\n%s", text)
	}
}

// An upgrade loses neither a client that has sent half of its header nor one that is served.
func TestUpgradeWithinAPROXYHeader(t *testing.T) {
	t.Parallel()
	a := startEcho(t, "a")
	d := found(t, service("web", `accept_proxy {`, `  from = ["127.0.0.0/8"]`, `  timeout = "10m"`, `}`, endpoints(a)))
	web := d.addr(t, "web")
	const header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 5432\r\n"
	open, half := headed(t, web, header), headed(t, web, header[:20])
	open.mustGreet(t, "a")
	eventually(t, "a client that has sent half a header", func() error {
		if code, text := d.command(t, "connections", "web"); code != 0 || !strings.Contains(text, "greeting") {
			return fmt.Errorf("got %s", text)
		}
		return nil
	})
	d.upgrade(t)
	must(t, open.echo("still there"))
	_, err := io.WriteString(half, header[20:])
	must(t, err)
	half.mustGreet(t, "a")
	must(t, half.echo("served after all"))
	fresh := headed(t, web, header)
	fresh.mustGreet(t, "a")
	eventually(t, "the client of the new process", func() error {
		if code, text := d.command(t, "connections", "web"); code != 0 || !strings.Contains(text, "192.0.2.7:4711") {
			return fmt.Errorf("got %s", text)
		}
		return nil
	})
}

// headed connects and sends text, such as a PROXY header.
func headed(t *testing.T, addr netip.AddrPort, text string) *client {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, text)
	must(t, err)
	return &client{TCPConn: conn, reader: bufio.NewReader(conn)}
}

// mustGreet waits for the name of the instance.
func (c *client) mustGreet(t *testing.T, name string) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if line, err := c.reader.ReadString('\n'); line != name+"\n" {
		t.Fatalf("got %q, %v, want the name of the instance, %s", line, err, name)
	}
	must(t, c.SetDeadline(time.Time{}))
}

// Clients with bad headers are counted and leave few lines in the log, and the service is fine.
func TestBadPROXYHeaders(t *testing.T) {
	t.Parallel()
	a := startEcho(t, "a")
	access := filepath.Join(t.TempDir(), "access.log")
	l := runLictor(t, fmt.Sprintf("access_log {\n  path = %q\n}\n", access)+service("web", believing, endpoints(a)))
	web := l.addr(t, "web")
	const bad = 200
	for range bad {
		c := headed(t, web, "GET / HTTP/1.1\r\n\r\n")
		_, err := io.ReadAll(c)
		if err == nil {
			t.Fatal("a client without a header was not reset")
		}
	}
	l.awaitMetrics(t, fmt.Sprintf(`lictor_clients_refused_total{reason="proxy_header",service="web"} %d`, bad),
		`lictor_service_state{service="web",state="fine"} 1`, `lictor_connections_active{service="web"} 0`)
	l.awaitAnswer(t, "status web", 0, "200 clients: proxy_header 200")
	lines := 0
	for _, e := range l.log() {
		if e.field("@message") == "client refused" {
			lines++
		}
	}
	if lines == 0 || lines > bad/10 {
		t.Errorf("%d lines for %d clients", lines, bad)
	}
	awaitText(t, access, `"reason":"proxy_header"`)
	text, err := os.ReadFile(access)
	must(t, err)
	if n := strings.Count(string(text), `"client":"127.0.0.1:`); n > bad {
		t.Errorf("%d lines in the access log, want %d at most", n, bad)
	}
	headed(t, web, "PROXY UNKNOWN\r\n").mustGreet(t, "a")
}

// metric returns the value of a series, which is a whole number.
func (l *lictor) metric(t *testing.T, series string) (n int) {
	t.Helper()
	_, rest, _ := strings.Cut(l.metrics(t), "\n"+series+" ")
	_, err := fmt.Sscan(rest, &n)
	must(t, err)
	return n
}
