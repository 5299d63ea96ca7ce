package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/quic"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testdns"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// pythonUDPClients are UDP clients like pythonClients. Each must get the answer of the instance a.
var pythonUDPClients = map[string]string{
	"a connected socket": `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", port))
assert s.getpeername() == ("127.0.0.1", port), s.getpeername()
s.send(b"who")
answer, by = s.recvfrom(99)
assert by == ("127.0.0.1", port), by`,
	"a socket that is not connected": `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3):
    s.sendto(b"who", ("127.0.0.1", port))
    answer, by = s.recvfrom(99)
    assert by == ("127.0.0.1", port), by`,
	"a connected IPv6 socket": `
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.connect(("::1", wild))
s.send(b"who")
answer, by = s.recvfrom(99)
assert by[:2] == ("::1", wild), by`,
	"an IPv6 socket that is not connected": `
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.sendto(b"who", ("::ffff:127.0.0.1", port))
answer, by = s.recvfrom(99)
assert by[:2] == ("::ffff:127.0.0.1", port), by`,
	"a socket that also has another peer": `
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.bind(("127.0.0.1", 0))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"who", ("127.0.0.1", port))
assert s.recvfrom(99)[1] == ("127.0.0.1", port)
s.sendto(b"hello", other.getsockname())
text, client = other.recvfrom(99)
other.sendto(b"world", client)
answer, by = s.recvfrom(99)
assert (answer, by) == (b"world", other.getsockname()), (answer, by)
s.sendto(b"who", ("127.0.0.1", port))
answer, by = s.recvfrom(99)
assert by == ("127.0.0.1", port), by`,
}

// UDP clients of all kinds are served while Lictor is frozen, and get their answers from the address that they know.
func TestKernelPathServesAllKindsOfUDPClients(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	a, host := startUDP(t, "a"), []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	dns := testdns.Listen(t, func(string) []netip.Addr { return host })
	at := netip.AddrPortFrom(netip.IPv6Unspecified(), freePort(t).Port())
	l := runLictor(t, onPath(group, service("web", udp, static(a.addr)), serviceAt("wild", at, udp, static(a.addr)),
		service("dns", udp, static(dns.Addr()))))
	port, wild, names := l.addr(t, "web"), l.addr(t, "wild"), l.addr(t, "dns")
	must(t, group.Enter())
	frozen(t, l.Process, func() {
		for name, client := range pythonUDPClients {
			t.Run("Python, "+name, func(t *testing.T) {
				python(t, client+"\nassert answer == b\"a\", answer", port, wild)
			})
		}
		t.Run("dig", func(t *testing.T) {
			out := output(t, "dig", "@127.0.0.1", "-p", fmt.Sprint(names.Port()), "+short", "+tries=1", "web.example")
			if strings.TrimSpace(out) != "192.0.2.7" {
				t.Errorf("got %q", out)
			}
		})
		t.Run("dnsperf", func(t *testing.T) {
			queries := filepath.Join(t.TempDir(), "queries")
			must(t, os.WriteFile(queries, []byte("web.example A\napi.example A\n"), 0o600))
			out := output(t, "dnsperf", "-s", "127.0.0.1", "-p", fmt.Sprint(names.Port()), "-d", queries, "-n", "500")
			if !regexp.MustCompile(`Queries completed: +1000 `).MatchString(out) {
				t.Errorf("not all queries were answered:\n%s", out)
			}
		})
		t.Run("logger", func(t *testing.T) {
			// It waits for no answer. The instance sends one to each datagram, but not to its own socket.
			output(t, "logger", "-n", "127.0.0.1", "-P", fmt.Sprint(port.Port()), "-d", "hello")
		})
	})
}

// output runs a program, and returns what it prints.
func output(t testing.TB, program string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		testproc.Cannot(t, "there is no "+program, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

// iperf3 has one connection to control the test and others for data, all to the same port.
func TestKernelPathCarriesBulk(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	server := startIperf(t)
	at := freePort(t)
	l := runLictor(t, onPath(group, serviceAt("tcp", at, static(server)), serviceAt("udp", at, udp, static(server))))
	_ = l.addr(t, "tcp")
	must(t, group.Enter())
	frozen(t, l.Process, func() {
		for _, args := range [][]string{{"-P", "4"}, {"-R"}, {"-u", "-b", "50M"}, {"-u", "-b", "50M", "-R"}} {
			t.Run(strings.Join(args, " "), func(t *testing.T) {
				args = append([]string{"-c", "127.0.0.1", "-p", fmt.Sprint(at.Port()), "-t", "1"}, args...)
				out := output(t, "iperf3", args...)
				if !strings.Contains(out, "iperf Done") {
					t.Error(out)
				}
			})
		}
	})
}

func startIperf(t testing.TB) netip.AddrPort {
	t.Helper()
	if _, err := exec.LookPath("iperf3"); err != nil {
		testproc.Cannot(t, "there is no iperf3", err)
	}
	at, log := freePort(t), &testproc.Log{}
	cmd := exec.Command("iperf3", "-s", "-B", "127.0.0.1", "-p", fmt.Sprint(at.Port()))
	cmd.Stdout, cmd.Stderr = log, log
	p, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("iperf3 said:\n%s", log)
		}
	})
	eventually(t, "iperf3 listens", func() error {
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		return c.Close()
	})
	return at
}

// QUIC uses one UDP socket for all packets of a client, and would notice an answer from another address.
func TestKernelPathServesQUIC(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	authority := testcert.NewAuthority(t, "authority")
	server := startQUIC(t, authority.Issue(t, testcert.Request{Names: []string{"quic.example"}}))
	l := runLictor(t, onPath(group, service("quic", udp, static(server))))
	to := l.addr(t, "quic")
	must(t, group.Enter())
	frozen(t, l.Process, func() {
		end, err := quic.Listen("udp4", "127.0.0.1:0", nil)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		defer func() { _ = end.Close(ctx) }()
		config := &quic.Config{TLSConfig: &tls.Config{RootCAs: authority.Pool(), ServerName: "quic.example",
			NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13}}
		conn, err := end.Dial(ctx, "udp4", to.String(), config)
		must(t, err)
		defer func() { _ = conn.Close() }()
		stream, err := conn.NewStream(ctx)
		must(t, err)
		text := strings.Repeat("all that a client sends comes back", 10_000)
		var sending sync.WaitGroup
		sending.Go(func() {
			if _, err := io.WriteString(stream, text); err != nil {
				t.Error(err)
			}
			stream.CloseWrite()
		})
		got, err := io.ReadAll(stream)
		sending.Wait()
		if err != nil || string(got) != text {
			t.Errorf("got %d bytes, %v, want the %d bytes sent", len(got), err, len(text))
		}
	})
}

// startQUIC starts a QUIC server that sends back what it receives on each stream.
func startQUIC(t testing.TB, c testcert.Certificate) netip.AddrPort {
	t.Helper()
	config := &quic.Config{TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.TLS(t)},
		NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13}}
	end, err := quic.Listen("udp4", "127.0.0.1:0", config)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := end.Accept(ctx)
			if err != nil {
				return
			}
			running.Go(func() {
				if stream, err := conn.AcceptStream(ctx); err == nil {
					_, _ = io.Copy(stream, stream) // the client notices an error
					_ = stream.Close()
				}
				_ = conn.Wait(ctx)
			})
		}
	})
	t.Cleanup(func() { cancel(); _ = end.Close(context.Background()); running.Wait() })
	return end.LocalAddr()
}

// A socket that is not connected stays with its instance, and goes to another one when that leaves. One that is
// connected to that instance is ended.
func TestKernelPathUDPClientsStayWithTheirInstance(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b"} {
		c.register(t, "dns", name, startUDP(t, name).addr)
	}
	l := runLictor(t, onPath(group, consulBlock(c), service("dns", udp, `consul { drop_hold = "0s" }`)))
	dns := net.UDPAddrFromAddrPort(l.addr(t, "dns"))
	must(t, group.Enter())
	var clients []*net.UDPConn
	var first []string
	frozen(t, l.Process, func() {
		for range 10 {
			s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			must(t, err)
			t.Cleanup(func() { _ = s.Close() })
			clients, first = append(clients, s), append(first, asksFrom(t, s, dns))
		}
		for i, s := range clients {
			for range 5 {
				if got := asksFrom(t, s, dns); got != first[i] {
					t.Errorf("client %d: served by %s, and before by %s", i, got, first[i])
				}
			}
		}
	})
	if a := strings.Count(strings.Join(first, ""), "a"); a != 5 {
		t.Errorf("%d of 10 clients were served by a, want 5", a)
	}
	connected := dialUDP(t, l.addr(t, "dns"))
	for connected.awaitAnswer(t, "a", "b") != "b" {
		connected = dialUDP(t, l.addr(t, "dns"))
	}
	c.deregister(t, "b")
	eventually(t, "the socket that is connected to b is ended", func() error {
		_, err := connected.exchange(who)
		if !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.EDESTADDRREQ) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	eventually(t, "a serves all clients", func() error {
		for i, s := range clients {
			if got := asksFrom(t, s, dns); got != "a" {
				return fmt.Errorf("client %d is served by %s", i, got)
			}
		}
		return nil
	})
}

// asksFrom sends "who" from a socket that is not connected, and returns the answer, which must come from the service.
func asksFrom(t testing.TB, s *net.UDPConn, service *net.UDPAddr) string {
	t.Helper()
	must(t, s.SetDeadline(time.Now().Add(patience)))
	_, err := s.WriteToUDP(who, service)
	must(t, err)
	buf := make([]byte, 64)
	n, from, err := s.ReadFromUDP(buf)
	must(t, err)
	if from.AddrPort() != service.AddrPort() {
		t.Fatalf("the answer comes from %v, want %v", from, service)
	}
	return string(buf[:n])
}
