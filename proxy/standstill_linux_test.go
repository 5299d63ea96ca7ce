package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// standstillLimit is the idle_timeout and the connect_timeout of the process that is stopped. The stop lasts longer.
const standstillLimit = 8 * time.Second

// TestStandstillProcess is not a test but the process that TestStandstill stops.
func TestStandstillProcess(t *testing.T) {
	engine, addrs, found := strings.Cut(os.Getenv("LICTOR_STANDSTILL"), " ")
	if !found {
		t.Skip("TestStandstill starts this process")
	}
	balancer := lb.NewRoundRobin()
	o := Options{LoadBalancer: balancer}
	if engine == "portable" {
		o.Engine = EnginePortable
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	h := &house{T: t, Proxier: p, balancer: balancer}
	var specs []Service
	for i, addr := range strings.Fields(addrs) {
		s := Service{Name: fmt.Sprint(i), Listen: []netip.AddrPort{loopback}, IdleTimeout: standstillLimit,
			ConnectTimeout: standstillLimit}
		if i == 1 {
			s.Protocol = UDP
		}
		h.endpoints(s.Name, netip.MustParseAddrPort(addr))
		specs = append(specs, s)
	}
	if err := p.Apply(specs); err != nil {
		t.Fatal(err)
	}
	for _, l := range p.Listeners() { // sorted by service name
		fmt.Println("listens", l.Addr)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until TestStandstill ends
}

// startStandstill starts TestStandstillProcess with endpoints for its services, and returns its listeners.
func startStandstill(t *testing.T, engine string, endpoints ...netip.AddrPort) (*testproc.Process, []netip.AddrPort) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStandstillProcess$")
	env := "LICTOR_STANDSTILL=" + engine
	for _, e := range endpoints {
		env += " " + e.String()
	}
	cmd.Env = append(os.Environ(), env)
	stdin, stdout := pipeTo(t), pipeTo(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin.r, stdout.w, os.Stderr
	p, err := testproc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	var addrs []netip.AddrPort
	for lines := bufio.NewScanner(stdout.r); len(addrs) < len(endpoints); {
		if !lines.Scan() {
			t.Fatal("the process has not printed its listeners")
		}
		if text, found := strings.CutPrefix(lines.Text(), "listens "); found {
			addrs = append(addrs, netip.MustParseAddrPort(text))
		}
	}
	return p, addrs
}

type bothEnds struct{ r, w *os.File }

func pipeTo(t *testing.T) bothEnds {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return bothEnds{r, w}
}

// A slowListener accepts no connection until open is called, because its queue is full.
type slowListener struct {
	addr netip.AddrPort
	open func(handle func(net.Conn))
}

func newSlowListener(t *testing.T) slowListener {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := unix.Bind(fd, sockaddr(loopback)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	first, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	t.Cleanup(func() { first.Close(); l.Close(); handlers.Wait() })
	return slowListener{addr, func(handle func(net.Conn)) {
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 1000) })
		if err != nil {
			t.Fatal(err)
		}
		handlers.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				handlers.Go(func() { handle(c); c.Close() })
			}
		})
	}}
}

// dialsUnanswered returns how many TCP sockets of this host wait for addr to answer their SYN.
func dialsUnanswered(t *testing.T, addr netip.AddrPort) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const synSent = " 02 "
	for _, line := range bytes.Split(table, []byte("\n")) {
		if bytes.Contains(line, fmt.Appendf(nil, ":%04X%s", addr.Port(), synSent)) {
			n++
		}
	}
	return n
}

// A sessionCounter is a UDP server that echoes. A sessionCounter counts the source addresses of datagrams.
type sessionCounter struct {
	addr netip.AddrPort
	mu   sync.Mutex
	from map[netip.AddrPort]bool
}

func newSessionCounter(t *testing.T) *sessionCounter {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(1 << 20)
	s := &sessionCounter{addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), from: map[netip.AddrPort]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.mu.Lock()
			s.from[from] = true
			s.mu.Unlock()
			c.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	t.Cleanup(func() { c.Close(); wg.Wait() })
	return s
}

func (s *sessionCounter) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.from)
}

// say sends text over all connections.
func say(t *testing.T, text string, all ...[]net.Conn) {
	t.Helper()
	for _, c := range slices.Concat(all...) {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
}

// wantAnswers expects an answer over each connection.
func wantAnswers(t *testing.T, what string, conns []net.Conn, answer string) {
	t.Helper()
	var errs []error
	for _, c := range conns {
		buf := make([]byte, len(answer))
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != answer {
			errs = append(errs, fmt.Errorf("got %q, %v", buf, err))
		}
	}
	if len(errs) > 0 {
		t.Errorf("%d of %d %s have no answer: %v", len(errs), len(conns), what, errs[0])
	}
}

// dialMany dials addr many times.
func dialMany(t *testing.T, network string, addr netip.AddrPort, many int) (conns []net.Conn) {
	t.Helper()
	for range many {
		c, err := net.Dial(network, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// Bytes, datagrams and answers to dials that arrived in time count, even if the process was stopped until the timeout
// was over.
func TestStandstill(t *testing.T) {
	if sys.Faults {
		t.Skip("injected faults hide data that has arrived, which no kernel does")
	}
	t.Parallel() // the process that is stopped is another one
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			many := 40
			if e.kind == EngineAuto {
				many = 150 // more than a loop takes from epoll or from a UDP socket at once
			}
			counter, slow := newSessionCounter(t), newSlowListener(t)
			p, addrs := startStandstill(t, e.name, tcpServer(t, echo), counter.addr, slow.addr)
			refresh := func(what string, conns []net.Conn) { say(t, "a", conns); wantAnswers(t, what, conns, "a") }
			tcp := dialMany(t, "tcp", addrs[0], many)
			refresh("TCP connections", tcp)
			udp := dialMany(t, "udp", addrs[1], many)
			refresh("UDP sessions", udp)
			dials := dialMany(t, "tcp", addrs[2], 20)
			// Most dials are enough, because the kernel may have let one in, which must get its answer too.
			testproc.Await(t, "the dials", func() bool { return dialsUnanswered(t, slow.addr) > len(dials)/2 })
			refresh("TCP connections", tcp)
			refresh("UDP sessions", udp)
			sessions := counter.count()

			if err := testproc.Freeze(p.Pid()); err != nil {
				t.Fatal(err)
			}
			say(t, "b", tcp, udp)
			slow.open(func(c net.Conn) {
				_, _ = io.WriteString(c, "hello")
				_, _ = io.Copy(io.Discard, c)
			})
			time.Sleep(standstillLimit + time.Second) // this is the standstill
			if err := p.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}

			wantAnswers(t, "TCP connections", tcp, "b")
			wantAnswers(t, "UDP sessions", udp, "b")
			wantAnswers(t, "dials", dials, "hello")
			if n := counter.count(); n != sessions {
				t.Errorf("%d UDP sessions, want the same %d as before", n, sessions)
			}
		})
	}
}
