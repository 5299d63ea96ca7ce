package lb

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// listenTCP serves addr with serve until the returned function is called. If addr is zero, it uses any free port.
func listenTCP(t *testing.T, addr netip.AddrPort, serve func(net.Conn)) (at netip.AddrPort, stop func()) {
	t.Helper()
	if !addr.IsValid() {
		addr = netip.MustParseAddrPort("127.0.0.1:0")
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	}()
	stop = func() { _ = l.Close(); <-done }
	t.Cleanup(stop)
	return l.Addr().(*net.TCPAddr).AddrPort(), stop
}

// standbyScene returns a balancer and a Prober. The only endpoint of the service "web" was ejected for a cause, and has
// left the set.
func standbyScene(
	t *testing.T, o Options, e Endpoint, cause Cause,
) (b *RoundRobin, p *Prober, changes chan HealthChange) {
	t.Helper()
	b = NewRoundRobin()
	changes = make(chan HealthChange, 100)
	b.NotifyHealth(func(c HealthChange) { changes <- c })
	b.Configure("web", o)
	update(b, e)
	fails(t, b, e.ID, cause, cause)
	if c := <-changes; !c.Ejected {
		t.Fatalf("got %+v, want it ejected", c)
	}
	update(b)
	if n := b.Ejected("web", []Endpoint{e}); n != 1 {
		t.Fatalf("%d endpoints are ejected, want 1, though none is in the set", n)
	}
	p = NewProber(b)
	t.Cleanup(p.Close)
	return b, p, changes
}

// checkOften makes p check the endpoints of "web" more often than by default.
func checkOften(p *Prober) {
	p.Apply(map[string]Check{"web": {Interval: 10 * time.Millisecond, Timeout: time.Minute}})
}

// awaitReturn waits until the endpoint is no longer ejected.
func awaitReturn(t *testing.T, b *RoundRobin, e Endpoint, changes chan HealthChange) {
	t.Helper()
	c := testproc.Receive(t, "a change", changes)
	if c.Ejected || c.Service != "web" || c.Endpoint != e.ID {
		t.Errorf("got %+v, want the end of the ejection of %s", c, e.ID)
	}
	if n := b.Ejected("web", []Endpoint{e}); n != 0 {
		t.Errorf("%d endpoints are ejected, want none", n)
	}
}

// The ejection of a standby endpoint ends when the endpoint accepts connections again.
func TestStandbyReturnsWhenItAccepts(t *testing.T) {
	addr, stop := listenTCP(t, netip.AddrPort{}, func(c net.Conn) { _ = c.Close() })
	stop()
	e := Endpoint{ID: "A", Addr: addr}
	b, p, changes := standbyScene(t, Options{}, e, Refused)
	checkOften(p)
	p.Standby("web", []Endpoint{e})
	p.Standby("web", []Endpoint{e, {ID: "B", Addr: addr}}) // A keeps its health
	if n := b.Ejected("web", []Endpoint{e}); n != 1 {
		t.Fatalf("%d endpoints are ejected, want 1", n)
	}
	listenTCP(t, addr, func(c net.Conn) { _ = c.Close() })
	awaitReturn(t, b, e, changes)
}

// A standby endpoint that was ejected because it reset connections must keep a connection open.
func TestStandbyThatResetMustKeepAConnection(t *testing.T) {
	var well atomic.Bool
	resets := make(chan bool, 100)
	addr, _ := listenTCP(t, netip.AddrPort{}, func(c net.Conn) {
		if well.Load() {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
			return
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		resets <- true
	})
	e := Endpoint{ID: "A", Addr: addr}
	b, p, changes := standbyScene(t, Options{}, e, Reset)
	checkOften(p)
	p.Standby("web", []Endpoint{e})
	<-resets
	<-resets // the first reset is over
	if n := b.Ejected("web", []Endpoint{e}); n != 1 {
		t.Errorf("%d endpoints are ejected, want 1", n)
	}
	well.Store(true)
	awaitReturn(t, b, e, changes)
}

// Over UDP without a check, the ejection of a standby endpoint ends when its time is over.
func TestStandbyOverUDPWithoutACheck(t *testing.T) {
	e := Endpoint{ID: "A", Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	b, p, changes := standbyScene(t, Options{Network: UDP}, e, Refused)
	p.Standby("web", []Endpoint{e})
	awaitReturn(t, b, e, changes)
}

// A service that ignores failures has no ejected endpoints.
func TestEjectedIsWhatTheServiceTakesNoticeOf(t *testing.T) {
	e := Endpoint{ID: "A", Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	b, p, _ := standbyScene(t, Options{}, e, Refused)
	b.Configure("web", Options{MaxFails: -1})
	if n := b.Ejected("web", []Endpoint{e}); n != 0 {
		t.Errorf("%d endpoints are ejected with max_fails never, want none", n)
	}
	if n := b.Ejected("else", []Endpoint{e}); n != 0 {
		t.Errorf("%d endpoints of an unknown service are ejected, want none", n)
	}
	p.Standby("else", []Endpoint{e})
	if len(p.standby) != 0 {
		t.Error("an unknown service has standby endpoints")
	}
	p.Close()
	p.Standby("web", []Endpoint{e})
	if len(p.standby) != 0 {
		t.Error("a closed prober keeps standby endpoints")
	}
	checkOften(p)
	if len(p.services) != 0 {
		t.Error("a closed prober takes a check")
	}
}

// All of many standby endpoints are checked, a few at a time.
func TestStandbyChecksAllOfMany(t *testing.T) {
	var served [40]atomic.Bool
	var endpoints []Endpoint
	for i := range served {
		addr, _ := listenTCP(t, netip.AddrPort{}, func(c net.Conn) { served[i].Store(true); _ = c.Close() })
		endpoints = append(endpoints, Endpoint{ID: addr.String(), Addr: addr})
	}
	b := NewRoundRobin()
	b.Configure("web", Options{})
	p := NewProber(b)
	defer p.Close()
	checkOften(p)
	p.Standby("web", endpoints)
	for i := range served {
		testproc.Await(t, fmt.Sprintf("endpoint %d is checked", i), served[i].Load)
	}
}

// A standby endpoint is not a member. Failures of a standby endpoint are not ejections of the service, and do not
// change how members are picked.
func TestStandbyIsNoMember(t *testing.T) {
	e := Endpoint{ID: "A", Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	b, p, changes := standbyScene(t, Options{SlowStart: time.Hour}, e, Refused)
	p.Close() // only the following reports count
	g := b.groupOf("web")
	m := &Member{Endpoint: e, usage: g.newStandby(e)}
	counted, end := g.ejections.Load(), g.slowStartEnd.Load()
	m.Reached()
	m.Failed(Refused)
	if n := g.ejections.Load() - counted; n != 0 {
		t.Errorf("%d ejections count as the service's, want none", n)
	}
	m.Reached()
	if got := g.slowStartEnd.Load(); got != end {
		t.Errorf("a slow start ends at %v, want %v: there is no member", got, end)
	}
	for _, ejected := range []bool{false, true, false} {
		if c := <-changes; c.Ejected != ejected {
			t.Errorf("got %+v, want ejected %v", c, ejected)
		}
	}

	// An endpoint that is both a member and on standby is notified once.
	update(b, e)
	m.Failed(Refused)
	m.Reached()
	close(changes)
	var told []bool
	for c := range changes {
		told = append(told, c.Ejected)
	}
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v, want one ejection and its end", told)
	}
}

// An endpoint on standby can still have left for good.
func TestStandbyHasLeft(t *testing.T) {
	e := Endpoint{ID: "A", Addr: netip.MustParseAddrPort("127.0.0.1:9")}
	b := balanced(Options{}, e)
	m := member(t, b, "A")
	p := NewProber(b)
	defer p.Close()
	update(b)
	p.Standby("web", []Endpoint{e})
	b.OnUpdate([]Endpoints{{Service: "web", Left: []Departure{{Endpoint: e, Why: Deregistered}}}})
	if m.Gone() == nil {
		t.Error("the endpoint has not left for good")
	}
	m.Done()
}
