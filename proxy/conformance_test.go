package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// engines are the engines that the conformance suite in conformance_*_test.go runs on. Each of its tests gets an engine
// from forEachEngine.
var engines = []struct {
	name string
	kind Engine
}{
	{"auto", EngineAuto},
	{"portable", EnginePortable},
}

// onEachEngine is called by forEachEngine for each engine, and may change the options. Tests that run other tests set
// it.
var onEachEngine = func(*Options) {}

// onlyEngines are the names of the engines that forEachEngine uses; nil means all. Tests that run other tests set it.
var onlyEngines []string

func forEachEngine(t *testing.T, test func(t *testing.T, h *house)) {
	for _, e := range engines {
		if onlyEngines != nil && !slices.Contains(onlyEngines, e.name) {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			h := &house{T: t, balancer: lb.NewRoundRobin()}
			h.options = Options{LoadBalancer: h.balancer, Engine: e.kind}
			onEachEngine(&h.options)
			t.Cleanup(func() {
				if h.Proxier != nil {
					h.Proxier.Close()
				}
			})
			test(t, h)
		})
	}
}

// forEachEngineAtOnce is forEachEngine for a test that mostly waits. It runs beside others of its kind, once all other
// tests have ended. So it must not count what the process has (descriptors, goroutines, memory) or set what it has one
// of (a name server), and nothing may call it as a part of another test.
func forEachEngineAtOnce(t *testing.T, test func(t *testing.T, h *house)) {
	t.Parallel()
	forEachEngine(t, func(t *testing.T, h *house) {
		t.Parallel()
		test(t, h)
	})
}

// trickleLimit is a limit of silence that a trickle never reaches, even if the machine stands still for 2 s meanwhile.
const trickleLimit = 4 * time.Second

// trickle calls send 30 times. That takes longer than trickleLimit, and each pause is far shorter.
func trickle(send func()) {
	for range 30 {
		send()
		time.Sleep(trickleLimit / 20)
	}
}

// proxyHeaders makes all clients, services and servers of the suite use the PROXY protocol, except that UDP clients do
// not. A test that runs other tests sets it.
var proxyHeaders bool

// past is what takes the clients of the suite past the proxier, straight to the endpoints of the service "s"; nil means
// that there is nothing. A test that runs other tests sets it.
var past interface {
	set(h *house, listen netip.AddrPort, endpoints []netip.AddrPort)
	stats() Stats // only what both ways count: connections, UDP sessions, bytes of TCP and failed dials
	end(h *house) // called at the end of each test
}

// A house is a proxier under test and its balancer.
type house struct {
	*testing.T
	*Proxier
	balancer *lb.RoundRobin
	options  Options        // may be changed before the first call of serve
	listen   netip.AddrPort // what serve has returned
	protocol Protocol       // of the service that serve has applied last
}

func (h *house) start() {
	h.Helper()
	var err error
	if h.Proxier, err = New(h.options); err != nil {
		h.Fatal(err)
	}
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// serve applies one service "s" with the given endpoints, and returns its address. By default the service listens on
// 127.0.0.1:0. The default connect timeout is 20 s, because one second is too short when a busy machine opens hundreds
// of connections.
func (h *house) serve(s Service, endpoints ...netip.AddrPort) netip.AddrPort {
	h.Helper()
	if h.Proxier == nil {
		h.start()
	}
	s.Name = "s"
	if s.Listen == nil {
		s.Listen = []netip.AddrPort{loopback}
	}
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = 20 * time.Second
	}
	if proxyHeaders && s.Protocol == TCP {
		s.AcceptProxy = &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		s.SendProxy = proxyproto.V2
	}
	if opensWith.hello && s.Protocol == TCP {
		s.SNI = []string{"s.example"}
	}
	if proxyHeaders && s.Protocol == UDP {
		s.SendProxy = proxyproto.V2
	}
	encrypt(&s)
	h.endpoints("s", endpoints...)
	if err := h.Apply([]Service{s}); err != nil {
		h.Fatal(err)
	}
	h.listen, h.protocol = h.Listeners()[0].Addr.AddrPort, s.Protocol
	if past != nil {
		past.set(h, h.listen, endpoints)
		h.Cleanup(func() { past.end(h) })
	}
	return h.listen
}

// endpoints makes addrs the set of a service. Each address is its own ID.
func (h *house) endpoints(service string, addrs ...netip.AddrPort) {
	u := lb.Endpoints{Service: service}
	for _, a := range addrs {
		u.Endpoints = append(u.Endpoints, lb.Endpoint{ID: a.String(), Addr: a})
	}
	h.balancer.OnUpdate([]lb.Endpoints{u})
	if past != nil && h.listen.IsValid() {
		past.set(h, h.listen, addrs)
	}
}

// room returns how many descriptors there are for clients.
func (h *house) room() int64 {
	listeners, _ := h.budget.listeners.load()
	return h.budget.total - listeners
}

func (h *house) stats() Stats {
	if past != nil {
		return past.stats()
	}
	return h.Snapshot()[0]
}

// eventually waits until ok returns nil.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// equals returns a condition for eventually.
func equals[V comparable](what string, get func() V, want V) func() error {
	return func() error {
		if got := get(); got != want {
			return fmt.Errorf("%s: got %v, want %v", what, got, want)
		}
		return nil
	}
}

// A testConn is a connection of a client or a server of the suite: a *net.TCPConn, or a *tlsConn over one.
type testConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
	SetLinger(seconds int) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// tcpServer runs handle for each connection to a new listener until the test ends. The connection is closed after
// handle returns.
func tcpServer(t *testing.T, handle func(c testConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = PlainListener(l) // some tests run where accept4 is denied
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				if (!proxyHeaders || encrypted.inside || readHeader(c) == nil) && hearTLS(c) == nil {
					s := shakeHands(c.(*net.TCPConn), true)
					if !encrypted.inside || readHeader(s) == nil {
						handle(s)
					}
					s.Close()
				}
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what it reads. echo does not use io.Copy, which would hold pipes.
func echo(c testConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// named answers with its name and closes.
func named(name string) func(c testConn) {
	return func(c testConn) { io.WriteString(c, name) }
}

// deadPort returns an address on which no process listens.
func deadPort(t *testing.T) netip.AddrPort { return freePort(t, TCP) }

// freePort returns an address on which no process listens, and another one for each call. testproc.FreePort says which
// ports these are.
func freePort(t *testing.T, p Protocol) netip.AddrPort {
	t.Helper()
	port, err := testproc.FreePort(func(port int) bool {
		probe, err := listenAnywhere(p, uint16(port))
		return err == nil && probe.Close() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(loopback.Addr(), uint16(port))
}

// listenAnywhere listens on all addresses of this host, so it fails if a process listens on the port of any address.
func listenAnywhere(p Protocol, port uint16) (io.Closer, error) {
	at := fmt.Sprint(":", port)
	if p == UDP {
		return net.ListenPacket("udp", at)
	}
	return net.Listen("tcp", at)
}

func dialTCP(t *testing.T, addr netip.AddrPort) testConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second)) // turns a hang into a failure
	t.Cleanup(func() { c.Close() })
	return begin(c)
}

// dialAs dials addr over TCP as a client of the suite.
func dialAs(addr string) (testConn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return begin(c.(*net.TCPConn)), nil
}

// begin does what a client of the suite does first, and returns the connection that it uses then. If Lictor has reset c
// by now, the test sees that later.
func begin(c *net.TCPConn) testConn {
	if proxyHeaders {
		_, _ = c.Write(proxyproto.AppendV1(nil, addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())))
	}
	beginTLS(c)
	return shakeHands(c, false)
}

// ask connects, and returns all that the server sends.
func ask(t *testing.T, addr netip.AddrPort) string {
	t.Helper()
	c := dialTCP(t, addr)
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// exchange sends a text and expects it back.
func exchange(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Fatalf("got %q back, want %q", got, text)
	}
}

func wantReset(t *testing.T, err error) {
	t.Helper()
	if !isReset(err) {
		t.Errorf("got %v, want a connection reset", err)
	}
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

var errPending = errors.New("not yet")
