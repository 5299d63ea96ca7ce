//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A proxyPeer is another proxy in the middle of a chain. It takes the PROXY headers of one Lictor, and sends headers of
// its own to the next one.
type proxyPeer struct {
	program string
	sends   []string // the versions that it sends

	// start writes the configuration of a proxy that relays from one address to the other and sends headers of a
	// version, and returns the command that runs it.
	start func(t *testing.T, dir string, from, to netip.AddrPort, version string) []string
}

var proxyPeers = []proxyPeer{
	{program: "haproxy", sends: []string{"v1", "v2"}, start: haproxyBetween},
	{program: "nginx", sends: []string{"v1"}, start: nginxBetween}, // version 2 is not in all of its releases
}

// haproxyBetween also makes HAProxy check Lictor: a check sends a header that names no client.
func haproxyBetween(t *testing.T, dir string, from, to netip.AddrPort, version string) []string {
	t.Helper()
	config := fmt.Sprintf(`
defaults
    mode tcp
    timeout connect 10s
    timeout client 1m
    timeout server 1m
    timeout check 10s
listen middle
    bind %s accept-proxy
    server next %s %s check inter 50ms check-send-proxy
`, from, to, map[string]string{"v1": "send-proxy", "v2": "send-proxy-v2"}[version])
	must(t, os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600))
	return []string{"haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")}
}

func nginxBetween(t *testing.T, dir string, from, to netip.AddrPort, _ string) []string {
	t.Helper()
	return nginxStream(t, dir, fmt.Sprintf(`
        listen %s proxy_protocol;
        set_real_ip_from 127.0.0.0/8;
        proxy_pass %s;
        proxy_protocol on;`, from, to))
}

// nginxStream writes the configuration of an nginx with one server for TCP, and returns the command that runs it.
func nginxStream(t *testing.T, dir, server string) []string {
	t.Helper()
	var head string
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so" // where Debian has it
	if _, err := os.Stat(module); err == nil {
		head = "load_module " + module + ";\n"
	}
	if os.Getuid() == 0 {
		head += "user root;\n"
	}
	config := head + fmt.Sprintf(`
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { }
stream {
    server {%s
    }
}
`, server)
	must(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600))
	return []string{"nginx", "-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")}
}

// HAProxy and nginx understand the headers of Lictor, and Lictor understands theirs.
func TestPROXYHeadersFromAndToOtherProxies(t *testing.T) {
	t.Parallel()
	source := addresses(t, 1)[0]
	for _, peer := range proxyPeers {
		for _, in := range []string{"v1", "v2"} {
			for _, out := range peer.sends {
				t.Run(peer.program+" gets "+in+" and sends "+out, func(t *testing.T) {
					t.Parallel()
					peer.relay(t, source, in, out)
				})
			}
		}
	}
}

// relay sends a client through Lictor, the peer, and Lictor again, to an instance that says which client it has.
func (p proxyPeer) relay(t *testing.T, source netip.Addr, in, out string) {
	instance := startTCP(t, "a", tellClient)
	middle := freePort(t)
	l := runLictor(t, relaysTo("front", in, middle)+relaysTo("back", "v2", instance.addr, believing))
	p.run(t, middle, l.addr(t, "back"), out)

	c := mustConnectFrom(t, source, l.addr(t, "front"))
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if line, err := c.reader.ReadString('\n'); err != nil || line != c.LocalAddr().String()+"\n" {
		t.Errorf("the instance has the client %q, %v, want %s", line, err, c.LocalAddr())
	}
	must(t, c.echo("hello"))
	must(t, c.echo(strings.Repeat("bulk", 1<<18)))
	l.awaitAnswer(t, "connections back", 0, c.LocalAddr().String())
	if n := l.metric(t, `lictor_clients_refused_total{reason="proxy_header",service="back"}`); n != 0 {
		t.Errorf("%d headers of %s were refused, want none", n, p.program)
	}
}

// run runs the peer until the test ends, and waits until it accepts connections.
func (p proxyPeer) run(t *testing.T, from, to netip.AddrPort, version string) {
	t.Helper()
	if _, err := exec.LookPath(p.program); err != nil {
		testproc.Cannot(t, "there is no "+p.program+` ("make bench-peers" installs it)`, err)
	}
	output := &testproc.Log{}
	args := p.start(t, t.TempDir(), from, to, version)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	process, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() {
		process.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", p.program, output)
		}
	})
	eventually(t, p.program+" listens", func() error {
		if !process.Running() {
			if strings.Contains(output.String(), `"stream"`) {
				testproc.Cannot(t, "nginx has no stream module", fmt.Errorf("%s", output))
			}
			t.Fatalf("%s has ended", p.program)
		}
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(from))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// tellClient reads a header, sends the client's address in a line, and then echoes.
func tellClient(conn *net.TCPConn) error {
	var b []byte
	for {
		b = append(b, 0)
		if _, err := conn.Read(b[len(b)-1:]); err != nil {
			return err
		}
		h, n, err := proxyproto.Parse(b)
		if err != nil {
			return err
		}
		if n > 0 {
			if _, err := fmt.Fprintln(conn, h.Src); err != nil {
				return err
			}
			return echo(conn)
		}
	}
}
