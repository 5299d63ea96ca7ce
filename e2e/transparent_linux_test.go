package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testnet"
)

// A seer is a host with a server that knows no PROXY header. It tells each client the client's address, over TCP in the
// first line and over UDP in each answer. Over TCP, what the client sends comes back after that.
type seer struct{ tcp, udp netip.AddrPort }

func startSeer(t testing.TB, h *testnet.Host, at netip.Addr) seer {
	t.Helper()
	var l *net.TCPListener
	var c *net.UDPConn
	var err error
	h.Do(func() {
		if l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: at.AsSlice()}); err == nil {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: at.AsSlice()})
		}
	})
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				fmt.Fprintln(conn, conn.RemoteAddr().(*net.TCPAddr).IP)
				_, _ = io.Copy(conn, conn) // ends with the client
			})
		}
	})
	running.Go(func() {
		buf := make([]byte, 1<<10)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Append(nil, from.Addr()), from)
		}
	})
	t.Cleanup(func() { _, _ = l.Close(), c.Close(); running.Wait() })
	return seer{l.Addr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// A wayfarer is a connection of a client on another host.
type wayfarer struct {
	net.Conn
	lines *bufio.Reader
}

func startWayfarer(t testing.TB, h *testnet.Host, network string, to netip.AddrPort) wayfarer {
	t.Helper()
	var c net.Conn
	var err error
	h.Do(func() { c, err = net.Dial(network, to.String()) })
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	return wayfarer{c, bufio.NewReader(c)}
}

// hears fails the test unless the next line is want.
func (w wayfarer) hears(t testing.TB, want string) {
	t.Helper()
	if got, err := w.lines.ReadString('\n'); got != want+"\n" {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// asks sends a datagram, and fails the test unless the answer is want.
func (w wayfarer) asks(t testing.TB, want string) {
	t.Helper()
	_, err := w.Write([]byte("who am I?"))
	must(t, err)
	buf := make([]byte, 1<<10)
	if n, err := w.Read(buf); string(buf[:n]) != want {
		t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
	}
}

// The instances that Consul names see the addresses of clients on other hosts, over an upgrade too: open connections
// and UDP sessions go on, and the new process has the capability for new ones.
func TestTransparentServiceIsUpgraded(t *testing.T) {
	t.Parallel()
	findConsul(t) // before the namespace, where nothing can be downloaded
	if !testnet.Inside(t, lictorVar+"="+lictorPath(t)) {
		return
	}
	here, there := netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.1.0.2/24")
	near, far := netip.MustParsePrefix("10.2.0.1/24"), netip.MustParsePrefix("10.2.0.2/24")
	clients := testnet.AddHost(t, "to-clients", testnet.Link{Here: here, There: there})
	servers := testnet.AddHost(t, "to-servers", testnet.Link{Here: near, There: far})
	testnet.AddInterfaceRule(t, near.Addr(), "to-servers", 100) // all that comes from the servers is for Lictor
	testnet.AddLocalRoute(t, near.Addr(), 100)

	s := startSeer(t, servers, far.Addr())
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", s.tcp)
	c.register(t, "dns", "b", s.udp)
	free := netip.AddrPortFrom(here.Addr(), 0)
	d := found(t, consulBlock(c)+serviceAt("web", free, "transparent = true")+
		serviceAt("dns", free, udp, "transparent = true"))
	web, dns, client := d.addr(t, "web"), d.addr(t, "dns"), there.Addr().String()

	open, session := startWayfarer(t, clients, "tcp", web), startWayfarer(t, clients, "udp", dns)
	open.hears(t, client)
	session.asks(t, client)
	for i := range 2 {
		pid := d.upgrade(t)
		if !mayBeTransparent(t, pid) {
			t.Errorf("process %d has no capability for transparent", pid)
		}
		fmt.Fprintln(open, i)
		open.hears(t, fmt.Sprint(i))
		session.asks(t, client)
		startWayfarer(t, clients, "tcp", web).hears(t, client)
		startWayfarer(t, clients, "udp", dns).asks(t, client)
	}
}

// mayBeTransparent reports whether a process has CAP_NET_RAW or CAP_NET_ADMIN.
func mayBeTransparent(t testing.TB, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, after, _ := strings.Cut(string(b), "CapEff:\t")
	text, _, _ := strings.Cut(after, "\n")
	bits, err := strconv.ParseUint(text, 16, 64)
	must(t, err)
	return bits&(1<<unix.CAP_NET_RAW|1<<unix.CAP_NET_ADMIN) != 0
}
