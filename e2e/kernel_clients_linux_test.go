package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testnet"
)

// nobody is the user ID of an unprivileged user.
const nobody = 65534

// pythonClients are clients that make a connected socket s in different ways. They know the ports of a service that
// listens at 127.0.0.1, and of one that listens at all addresses.
var pythonClients = map[string]string{
	"an IPv4 address": `
s = socket.create_connection(("127.0.0.1", port))
assert s.getpeername() == ("127.0.0.1", port), s.getpeername()`,
	"a name": `s = socket.create_connection(("localhost", wild))`,
	"an IPv4-mapped address": `
s = socket.socket(socket.AF_INET6)
s.connect(("::ffff:127.0.0.1", port))
assert s.getpeername()[:2] == ("::ffff:127.0.0.1", port), s.getpeername()`,
	"an IPv6 address of an instance that has an IPv4 address": `
s = socket.socket(socket.AF_INET6)
s.connect(("::1", wild))
assert s.getpeername()[:2] == ("::1", wild), s.getpeername()`,
	"another loopback address": `s = socket.create_connection(("127.1.2.3", wild))`,
	"the unspecified address":  `s = socket.create_connection(("0.0.0.0", wild))`,
	"a non-blocking socket": `
s = socket.socket()
s.setblocking(False)
assert s.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
select.select([], [s], [])
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
s.setblocking(True)`,
	"a bound source": `
s = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.7", 0))
assert s.getsockname()[0] == "127.0.0.7", s.getsockname()`,
	"fast open": `
s = socket.socket()
s.setblocking(True)
s.sendto(b"hello", socket.MSG_FASTOPEN, ("127.0.0.1", port))`,
	"Multipath TCP": `
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.connect(("127.0.0.1", port))`,
	"a socket that was connected to something else": `
l = socket.create_server(("127.0.0.1", 0))
s = socket.create_connection(l.getsockname())
disconnect(s)
s.connect(("127.0.0.1", port))
assert s.getpeername() == ("127.0.0.1", port), s.getpeername()`,
	"a socket that is connected to something else later": `
s = socket.create_connection(("127.0.0.1", port))
disconnect(s)
l = socket.create_server(("127.0.0.1", 0))
s.connect(l.getsockname())
assert s.getpeername() == l.getsockname(), s.getpeername()
l.accept()[0].sendall(b"a\n")`,
}

// greets is the end of a program: the instance a has answered.
const greets = "\nassert s.makefile().readline() == \"a\\n\""

// python runs a client.
func python(t testing.TB, client string, port, wild netip.AddrPort, change ...func(*exec.Cmd)) {
	t.Helper()
	program := fmt.Sprintf(`
import ctypes, errno, select, socket
def disconnect(s):
    assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
socket.setdefaulttimeout(20)
port, wild = %d, %d
%s
`, port.Port(), wild.Port(), client)
	cmd := exec.Command("/usr/bin/python3", "-c", program) // one that all users can run
	for _, f := range change {
		f(cmd)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Clients in all languages connect in their own ways, and know nothing of the path. nginx is one of them.
func TestKernelPathServesAllKindsOfClients(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	a := startGreeter(t, "a")
	wild := netip.AddrPortFrom(netip.IPv6Unspecified(), freePort(t).Port())
	l := runLictor(t, onPath(group, service("web", static(a.addr)), serviceAt("wild", wild, static(a.addr)),
		service("page", static(startPage(t)))))
	web, page := l.addr(t, "web"), l.addr(t, "page")
	must(t, group.Enter())
	middle := freePort(t)
	plainNginx.run(t, middle, web, "")
	frozen(t, l.Process, func() {
		for name, client := range pythonClients {
			t.Run("Python, "+name, func(t *testing.T) { python(t, client+greets, web, wild) })
		}
		t.Run("another user", func(t *testing.T) {
			python(t, pythonClients["an IPv4 address"]+greets, web, wild, func(cmd *exec.Cmd) {
				cmd.Dir = "/"
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			})
		})
		t.Run("curl", func(t *testing.T) {
			out, err := exec.Command("curl", "-sS", "-m", "20", "http://"+page.String()).CombinedOutput()
			if err != nil || string(out) != "page" {
				t.Errorf("got %q, %v", out, err)
			}
		})
		t.Run("Go", func(t *testing.T) {
			client := http.Client{Timeout: 20 * time.Second}
			answer, err := client.Get("http://" + page.String())
			must(t, err)
			defer answer.Body.Close()
			if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "page" {
				t.Errorf("got %q, %v", text, err)
			}
			client.CloseIdleConnections()
		})
		t.Run("nginx", func(t *testing.T) { wantCounts(t, middle, map[string]int{"a": 5}) })
	})
}

// startPage starts an instance that serves a page over HTTP.
func startPage(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// plainNginx is an nginx that relays TCP.
var plainNginx = proxyPeer{program: "nginx", start: func(t *testing.T, dir string, from, to netip.AddrPort,
	_ string) []string {
	t.Helper()
	return nginxStream(t, dir, fmt.Sprintf(" listen %s; proxy_pass %s; ", from, to))
}}

// An instance on another host is reached from the address that the kernel would choose for it. A socket that is bound
// to a loopback address cannot reach it, so the proxy serves that one.
func TestKernelPathReachesOtherHosts(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	here, there := netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.1.0.2/24")
	s := startSeer(t, testnet.AddHost(t, "to-servers", testnet.Link{Here: here, There: there}), there.Addr())
	l := runLictor(t, onPath(group, service("web", static(s.tcp))))
	web := l.addr(t, "web")
	must(t, group.Enter())
	frozen(t, l.Process, func() {
		for _, source := range []string{"", here.Addr().String()} {
			name, err := askFrom(source, web)
			if err != nil || name != here.Addr().String() {
				t.Errorf("from %q: the instance sees %q, %v, want %v", source, name, err, here.Addr())
			}
		}
	})
	for _, source := range []string{"127.0.0.1", "127.0.0.9"} {
		if name, err := askFrom(source, web); err != nil || name != here.Addr().String() {
			t.Errorf("from %q: the instance sees %q, %v, want the proxy's %v", source, name, err, here.Addr())
		}
	}
}

// askFrom connects from an address, any if it is empty, and returns the line that the instance sends.
func askFrom(source string, to netip.AddrPort) (string, error) {
	d := net.Dialer{Timeout: patience}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	line := make([]byte, 64)
	n, err := c.Read(line)
	return strings.TrimSpace(string(line[:n])), err
}

// A container has its own loopback addresses. What it has at the address of a service there is not Lictor's.
func TestKernelPathLeavesContainersAlone(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	l := runLictor(t, onPath(group, service("web", static(startGreeter(t, "a").addr))))
	web := l.addr(t, "web")
	must(t, group.Enter())
	container := testnet.AddHost(t, "to-container")
	dial := func() (conn net.Conn, err error) {
		container.Do(func() { conn, err = net.DialTimeout("tcp", web.String(), patience) })
		return conn, err
	}
	if conn, err := dial(); err == nil {
		t.Errorf("nothing listens in the container, and got a connection to %v", conn.RemoteAddr())
	}
	var own net.Listener
	var err error
	container.Do(func() { own, err = net.Listen("tcp", web.String()) })
	must(t, err)
	defer own.Close()
	conn, err := dial()
	must(t, err)
	defer conn.Close()
	served, err := own.Accept()
	must(t, err)
	must(t, served.Close())
	wantCounts(t, web, map[string]int{"a": 3})
}
