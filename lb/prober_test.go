package lb

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// stateOf returns the state of an endpoint of "web".
func stateOf(b *RoundRobin, id string) State {
	for _, e := range b.Snapshot()[0].Endpoints {
		if e.ID == id {
			return e.State
		}
	}
	return -1
}

func at(id string, addr net.Addr) Endpoint {
	return Endpoint{ID: id, Addr: netip.MustParseAddrPort(addr.String()), Weight: 1}
}

// The Prober notices when an unused endpoint stops and starts accepting connections.
func TestProberOverTCP(t *testing.T) {
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	a, c := listen("127.0.0.1:0"), listen("127.0.0.1:0")
	b := balanced(Options{}, at("A", a.Addr()), at("B", c.Addr()))
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: 5 * time.Millisecond, Timeout: time.Second}})
	addr := a.Addr().String()
	a.Close()
	testproc.Await(t, "A is ejected", func() bool { return stateOf(b, "A") == StateEjected })
	if s := stateOf(b, "B"); s != StateIn {
		t.Errorf("B is %v, want in", s)
	}
	listen(addr)
	testproc.Await(t, "A is back", func() bool { return stateOf(b, "A") == StateIn })
}

func TestProberOverUDP(t *testing.T) {
	var answer atomic.Pointer[string]
	say := func(s string) { answer.Store(&s) }
	say("pong and more")
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if s := *answer.Load(); s != "" && string(buf[:n]) == "ping" {
				_, _ = conn.WriteToUDPAddrPort([]byte(s), from)
			}
		}
	}()
	dead, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	b := balanced(Options{Network: UDP, MinAvailable: -1}, at("A", conn.LocalAddr()), at("B", dead.LocalAddr()))
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: 5 * time.Millisecond, Timeout: 20 * time.Millisecond, Send: "ping",
		Expect: "pong"}})
	testproc.Await(t, "B is ejected", func() bool { return stateOf(b, "B") == StateEjected })
	testproc.Await(t, "A is in", func() bool { return stateOf(b, "A") == StateIn })
	for _, bad := range []string{"", "what?"} {
		say(bad)
		testproc.Await(t, "A is ejected", func() bool { return stateOf(b, "A") == StateEjected })
		say("pong")
		testproc.Await(t, "A is back", func() bool { return stateOf(b, "A") == StateIn })
	}
}

// Checks start and end with their endpoints, their service and the Prober.
func TestProberFollows(t *testing.T) {
	var a, c atomic.Int64
	serve := func(n *atomic.Int64) net.Addr {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				n.Add(1)
				conn.Close()
			}
		}()
		return l.Addr()
	}
	first, second := at("A", serve(&a)), at("B", serve(&c))
	b := balanced(Options{}, first)
	p := NewProber(b)
	defer p.Close()
	check := Check{Interval: 5 * time.Millisecond, Timeout: time.Second}
	p.Apply(map[string]Check{"web": check, "unknown": check})
	testproc.Await(t, "A is checked", func() bool { return a.Load() > 3 })
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: []Endpoint{second}}})
	testproc.Await(t, "B is checked", func() bool { return c.Load() > 3 })
	settles := func(n *atomic.Int64) bool {
		was := n.Load()
		time.Sleep(50 * time.Millisecond)
		return n.Load() == was
	}
	testproc.Await(t, "A is not checked any more", func() bool { return settles(&a) })
	p.Apply(map[string]Check{"web": check})
	was := c.Load()
	testproc.Await(t, "B is checked on", func() bool { return c.Load() > was+3 })
	p.Apply(nil)
	testproc.Await(t, "B is not checked any more", func() bool { return settles(&c) })
}

// Probe works for an endpoint that the balancer does not have, and reports nothing to the balancer.
func TestProbe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := balanced(Options{}, at("A", l.Addr()))
	p := NewProber(b)
	defer p.Close()
	if err := p.Probe(t.Context(), "web", at("X", l.Addr())); err != nil || !p.CanProbe("web") {
		t.Errorf("got %v, want no error", err)
	}
	l.Close()
	if err := p.Probe(t.Context(), "web", at("A", l.Addr())); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want refused", err)
	}
	if s := stateOf(b, "A"); s != StateIn {
		t.Errorf("A is %v, want in", s)
	}
}

// Over UDP, only a check can tell whether an endpoint answers.
func TestProbeOverUDPNeedsACheck(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := balanced(Options{Network: UDP})
	p := NewProber(b)
	defer p.Close()
	if p.CanProbe("web") {
		t.Error("without a check it can be probed")
	}
	p.Apply(map[string]Check{"web": {Interval: time.Hour, Timeout: 5 * time.Second, Send: "ping", Expect: "pong"}})
	if !p.CanProbe("web") {
		t.Error("with a check it cannot be probed")
	}
	done := make(chan error, 1)
	go func() { done <- p.Probe(t.Context(), "web", at("A", conn.LocalAddr())) }()
	buf := make([]byte, 100)
	_, from, err := conn.ReadFromUDP(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteToUDP([]byte("pong"), from); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// A server that speaks first sees an orderly end of the probe's connection, not a reset.
func TestProbeReadsTheGreeting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ends := make(chan error)
	greet := func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			_, _ = c.Write([]byte("220 ready\r\n"))
			_, err = io.ReadAll(c)
		}
		ends <- err
	}
	p := NewProber(balanced(Options{}))
	defer p.Close()
	for range 50 { // the greeting must arrive before the probe ends
		go greet()
		if err := p.Probe(t.Context(), "web", at("A", l.Addr())); err != nil {
			t.Error(err)
		}
		if err := <-ends; err != nil {
			t.Fatalf("the server saw %v, want the end", err)
		}
	}
}

// All kinds of checks over TCP begin with the header of their service, and so do those of a Unix socket.
func TestProbesSendTheirHeader(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	probesSendTheirHeader(t, l, func(id string) Endpoint { return at(id, l.Addr()) })
	path := filepath.Join(t.TempDir(), "s")
	if l, err = net.Listen("unix", path); err != nil {
		t.Skipf("this system has no Unix sockets: %v", err)
	}
	probesSendTheirHeader(t, l, func(id string) Endpoint { return Endpoint{ID: id, Path: path} })
}

func probesSendTheirHeader(t *testing.T, l net.Listener, at func(id string) Endpoint) {
	t.Helper()
	heard := make(chan string, 100)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			heard <- string(b)
			_ = c.Close()
		}
	})
	defer running.Wait()
	defer l.Close()
	b := balanced(Options{ProbeHeader: proxyproto.V2}, at("A"))
	p := NewProber(b)
	defer p.Close()
	want := func(kind string) {
		t.Helper()
		if got := testproc.Receive(t, kind, heard); got != string(proxyproto.AppendV2(nil, proxyproto.Header{})) {
			t.Errorf("%s: got %q, want the header", kind, got)
		}
	}
	if err := p.Probe(t.Context(), "web", at("X")); err != nil {
		t.Error(err)
	}
	want("a single probe")
	p.Apply(map[string]Check{"web": {Interval: time.Hour, Timeout: time.Minute}})
	want("the check of the service")
	p.Apply(nil)
	p.Standby("web", []Endpoint{at("B")})
	want("the check of a standby endpoint")
}

// A check over UDP has its header in the same datagram.
func TestProbeOverUDPSendsItsHeader(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 10)
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
			_, _ = server.WriteToUDPAddrPort([]byte("pong"), from)
		}
	})
	defer running.Wait()
	defer server.Close()
	b := balanced(Options{Network: UDP, ProbeHeader: proxyproto.V2}, at("A", server.LocalAddr()))
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: time.Hour, Timeout: time.Minute, Send: "ping", Expect: "pong"}})
	want := string(proxyproto.AppendV2(nil, proxyproto.Header{})) + "ping"
	if got := testproc.Receive(t, "the check", heard); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := p.Probe(t.Context(), "web", at("X", server.LocalAddr())); err != nil {
		t.Error(err)
	}
}

// After the process was suspended, the time of a check is over, but the check still finds the answer.
func TestCheckThatIsOverLooksForAnAnswer(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort([]byte("pong"), from)
		}
	}()
	at := server.LocalAddr().(*net.UDPAddr).AddrPort()
	testproc.Await(t, "a check with no time at all is passed", func() bool {
		return exchangeWith(t.Context(), at, Check{Send: "ping", Expect: "pong"}, proxyproto.None, 0) == nil
	})
}

// A check over TLS shakes hands, also behind a PROXY header, and does not believe every certificate.
func TestCheckOverTLS(t *testing.T) {
	ca := testcert.NewAuthority(t, "root")
	good := ca.Issue(t, testcert.Request{Names: []string{"127.0.0.1"}}).TLS(t)
	bad := testcert.NewAuthority(t, "other").Issue(t, testcert.Request{Names: []string{"127.0.0.1"}}).TLS(t)
	for _, tt := range []struct {
		name   string
		shows  *tls.Certificate // nil: the endpoint does not speak TLS
		inside bool             // the header comes inside TLS
		fails  bool
	}{{"good", &good, false, false}, {"bad", &bad, false, true}, {"none", nil, false, true},
		{"header inside", &good, true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			served := make(chan error, 1)
			go func() {
				conn, err := l.Accept()
				if err == nil {
					served <- serveCheck(conn, tt.shows, tt.inside)
				}
			}()
			b := balanced(Options{ProbeHeader: proxyproto.V2, ProbeTLS: &ProbeTLS{HeaderInside: tt.inside,
				Config: func(e Endpoint) (*tls.Config, error) {
					return &tls.Config{ServerName: e.Addr.Addr().String(), RootCAs: ca.Pool()}, nil
				}}}, at("A", l.Addr()))
			p := NewProber(b)
			defer p.Close()
			err = p.Probe(t.Context(), "web", Endpoint{ID: "A", Addr: l.Addr().(*net.TCPAddr).AddrPort()})
			if (err != nil) != tt.fails {
				t.Errorf("got %v, want a failure: %v", err, tt.fails)
			}
			if cause, local := CauseOf(err); tt.fails && (cause != Handshake || local) {
				t.Errorf("got cause %v, local %v", cause, local)
			}
			if err := testproc.Receive(t, "the end of the check", served); (err != nil) != tt.fails {
				t.Errorf("the endpoint got %v", err)
			}
		})
	}
}

// A check uses the present server name of its endpoint, although the endpoint stays.
func TestCheckFollowsTheServerName(t *testing.T) {
	ca := testcert.NewAuthority(t, "root")
	shows := ca.Issue(t, testcert.Request{Names: []string{"good.test"}}).TLS(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{shows}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	e := at("A", l.Addr())
	b := balanced(Options{MaxFails: 1, ProbeTLS: &ProbeTLS{Config: func(e Endpoint) (*tls.Config, error) {
		return &tls.Config{ServerName: e.ServerName, RootCAs: ca.Pool()}, nil
	}}}, e)
	p := NewProber(b)
	defer p.Close()
	p.Apply(map[string]Check{"web": {Interval: 10 * time.Millisecond, Timeout: testproc.Patience}})
	for _, name := range []string{"bad.test", "good.test", "bad.test"} {
		e.ServerName = name
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: []Endpoint{e}}})
		testproc.Await(t, "the state by "+name, func() bool {
			return (stateOf(b, "A") == StateEjected) == (name == "bad.test")
		})
	}
}

// serveCheck serves a check that sends a PROXY header of version 2 without addresses, and then shakes hands. If inside
// is true, the handshake comes first.
func serveCheck(conn net.Conn, shows *tls.Certificate, inside bool) error {
	defer func() { _ = conn.Close() }()
	header := make([]byte, 16)
	if !inside {
		if _, err := io.ReadFull(conn, header); err != nil {
			return err
		}
	}
	if shows == nil {
		return errors.New("no TLS is spoken here")
	}
	secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*shows}})
	if err := secure.Handshake(); err != nil {
		return err
	}
	if inside {
		if _, err := io.ReadFull(secure, header); err != nil {
			return err
		}
	}
	if n, err := io.Copy(io.Discard, secure); n > 0 || err != nil {
		return fmt.Errorf("%d bytes behind the header, %v", n, err)
	}
	if !bytes.HasPrefix(header, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
		return fmt.Errorf("got the header %q", header)
	}
	return nil
}
