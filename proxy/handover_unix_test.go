//go:build unix

package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// whoServer answers each datagram with the datagram itself and its source address.
func whoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s from %s", buf[:n], from), from)
		}
	})
	t.Cleanup(func() { c.Close(); running.Wait() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// exactly sends a datagram once and waits for its answer, because no datagram may be lost here.
func exactly(c *net.UDPConn, text string) (string, error) {
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<10)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// succeed starts a successor of p, and lets it take over.
func succeed(t *testing.T, p *Proxier, o Options, services []Service) *Proxier {
	t.Helper()
	next := prepareSuccessor(t, p, o, services)
	next.Begin(passed(t, p.Suspend()))
	p.Release()
	return next
}

func prepareSuccessor(t *testing.T, p *Proxier, o Options, services []Service) *Proxier {
	t.Helper()
	var err error
	if o.Inherited, err = p.Sockets(); err != nil {
		t.Fatal(err)
	}
	o.Hold = true
	next, err := New(o)
	if err == nil {
		err = next.Apply(services)
	}
	if err != nil {
		t.Fatal(err)
	}
	if unused := next.DropInherited(); len(unused) > 0 {
		t.Errorf("inherited sockets that are not used: %v", unused)
	}
	return next
}

// passed duplicates the descriptors, as the kernel does when they are passed to another process.
func passed(t *testing.T, sessions []Session) []Session {
	for i := range sessions {
		fd, err := duplicateFD(sessions[i].FD)
		if err != nil {
			t.Fatal(err)
		}
		sessions[i].FD = fd
	}
	return sessions
}

// turners are clients that repeat an action until they are stopped. No action may fail.
type turners struct {
	*testing.T
	stop    chan struct{}
	turns   []*atomic.Int64
	running sync.WaitGroup
}

func (c *turners) repeat(turn func(i int) error) {
	n, done := len(c.turns), new(atomic.Int64)
	c.turns = append(c.turns, done)
	c.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-c.stop:
				return
			default:
			}
			if err := turn(i); err != nil {
				c.Errorf("client %d, turn %d: %v", n, i, err)
				return
			}
			done.Add(1)
		}
	})
}

// getOn waits until all clients have repeated their actions a few more times.
func (c *turners) getOn() {
	c.Helper()
	for n, done := range c.turns {
		before := done.Load()
		eventually(c.T, func() error {
			if done.Load() < before+3 && !c.Failed() {
				return fmt.Errorf("client %d makes no progress", n)
			}
			return nil
		})
	}
}

// sameInstance returns the action of a client that keeps its port. The same instance must answer each datagram and see
// it come from the same port.
func sameInstance(c *net.UDPConn) func(i int) error {
	first := ""
	return func(i int) error {
		text := fmt.Sprint("datagram ", i)
		got, err := exactly(c, text)
		from, ok := strings.CutPrefix(got, text)
		switch {
		case err != nil || !ok:
			return fmt.Errorf("asked %q, got %q, %v", text, got, err)
		case first == "":
			first = from
		case from != first:
			return fmt.Errorf("%s, was%s", from, first)
		}
		return nil
	}
}

// newClient asks from a new port.
func newClient(addr netip.AddrPort) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer c.Close()
	for range 3 {
		if _, err = exactly(c, "new"); err != nil {
			return err
		}
	}
	return nil
}

func TestSuccessorsServeWithoutAFailure(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		balancer := lb.NewRoundRobin()
		h.options.LoadBalancer = balancer
		h.start()
		services := []Service{
			{Name: "any", Protocol: UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort("[::]:0")}},
			{Name: "dns", Protocol: UDP, Listen: []netip.AddrPort{loopback}, Responses: 1},
			{Name: "tcp", Listen: []netip.AddrPort{loopback}},
			{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}},
		}
		var sets []lb.Endpoints
		for _, s := range services {
			one := lb.Endpoints{Service: s.Name}
			for range 3 {
				a := tcpServer(t, echo)
				if s.Protocol == UDP {
					a = whoServer(t)
				}
				one.Endpoints = append(one.Endpoints, lb.Endpoint{ID: a.String(), Addr: a})
			}
			sets = append(sets, one)
		}
		balancer.OnUpdate(sets)
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		all := h.Listeners()
		wild := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), all[0].Addr.AddrPort.Port())
		dns, tcp, udp := all[1].Addr.AddrPort, all[2].Addr.AddrPort, all[3].Addr.AddrPort
		clients := &turners{T: t, stop: make(chan struct{})}
		kept, once := dialTCP(t, tcp), dialUDP(t, dns)
		clients.repeat(func(int) error { return echoOnce(tcp) })
		clients.repeat(func(i int) error { return echoOver(kept, fmt.Sprint(i)) })
		clients.repeat(sameInstance(dialUDP(t, udp)))
		clients.repeat(sameInstance(dialUDP(t, wild)))
		clients.repeat(func(int) error { return newClient(udp) })
		clients.repeat(func(i int) error { _, err := exactly(once, "dns"); return err })

		proxiers := []*Proxier{h.Proxier}
		for n := 0; n < 20 && !t.Failed(); n++ {
			clients.getOn()
			proxiers = append(proxiers, succeed(t, proxiers[n], h.options, services))
		}
		clients.getOn()
		close(clients.stop)
		clients.running.Wait()
		kept.Close()
		for _, p := range proxiers {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if err := p.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown of a proxier: %v", err)
			}
			cancel()
		}
		for _, s := range balancer.Snapshot() {
			if s.Open != 0 {
				t.Errorf("service %s: %d uses are still open", s.Service, s.Open)
			}
		}
	})
}

func echoOnce(addr netip.AddrPort) error {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer c.Close()
	return echoOver(c, "once")
}

func echoOver(c testConn, text string) error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	buf := make([]byte, len(text))
	for n := 0; n < len(buf); {
		m, err := c.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if string(buf) != text {
		return fmt.Errorf("sent %q, got %q", text, buf)
	}
	return nil
}

// A successor that fails before Begin leaves the predecessor as it was, with its sessions.
func TestSuccessorThatFailsChangesNothing(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 2
		h.start()
		services := []Service{{Name: "tcp", Listen: []netip.AddrPort{loopback}},
			{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}}}
		h.endpoints("udp", whoServer(t), whoServer(t))
		h.endpoints("tcp", tcpServer(t, echo))
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		tcp, udp := h.Listeners()[0].Addr.AddrPort, h.Listeners()[1].Addr.AddrPort
		var clients []*net.UDPConn
		var first []string
		for range 10 {
			c := dialUDP(t, udp)
			got, err := exactly(c, "who")
			if err != nil {
				t.Fatal(err)
			}
			clients, first = append(clients, c), append(first, got)
		}
		for range 3 {
			before := openDescriptors()
			next := prepareSuccessor(t, h.Proxier, h.options, services)
			prepared := openDescriptors()
			if sessions := h.Suspend(); len(sessions) != len(clients) {
				t.Errorf("%d sessions, want %d", len(sessions), len(clients))
			}
			if n := openDescriptors(); n > prepared { // there may be fewer free descriptors than sessions
				t.Errorf("Suspend has opened %d descriptors", n-prepared)
			}
			for _, c := range clients { // no process reads these yet
				if _, err := c.Write([]byte("who")); err != nil {
					t.Fatal(err)
				}
			}
			h.Resume()
			next.Close()
			buf := make([]byte, 100)
			for i, c := range clients {
				c.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, err := c.Read(buf)
				if err != nil || string(buf[:n]) != first[i] {
					t.Fatalf("after a successor that failed: got %q, %v, want %q", buf[:n], err, first[i])
				}
			}
			if err := echoOnce(tcp); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if n := openDescriptors(); before > 0 && n > before {
					return fmt.Errorf("%d descriptors are open, were %d", n, before)
				}
				return nil
			})
		}
	})
}

// No session expires between Suspend and Resume, because the session's descriptor may be sent to another process.
func TestNothingExpiresWhileItStands(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const idle = 20 * time.Millisecond
		h.start()
		h.endpoints("udp", whoServer(t))
		if err := h.Apply([]Service{{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback},
			IdleTimeout: idle}}); err != nil {
			t.Fatal(err)
		}
		c := dialUDP(t, h.Listeners()[0].Addr.AddrPort)
		var all []Session
		eventually(t, func() error { // the session may expire before
			if _, err := exactly(c, "who"); err != nil {
				return err
			}
			if all = h.Suspend(); len(all) != 1 {
				h.Resume()
				return fmt.Errorf("%d sessions", len(all))
			}
			return nil
		})
		for until := time.Now().Add(10 * idle); time.Now().Before(until); time.Sleep(time.Millisecond) {
			if n := h.stats().SessionsActive; n != 1 {
				t.Fatalf("%d sessions after %v, want 1", n, time.Until(until))
			}
		}
		h.Resume()
		eventually(t, func() error {
			if n := h.stats().SessionsActive; n != 0 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
	})
}

// A handed-over session continues: it ends when the last answer has come, and datagrams that wait in its socket are not
// lost.
func TestHandedSessionGoesOnWhereItWas(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		release := make(chan struct{})
		backend := udpServer(t, func(b []byte) []byte {
			if string(b) == "late" {
				<-release
			}
			return b
		})
		services := []Service{{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}, Responses: 1}}
		h.start()
		h.endpoints("udp", backend)
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		c := dialUDP(t, h.Listeners()[0].Addr.AddrPort)
		for _, text := range []string{"late", "later"} {
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, equals("datagrams that went up", func() int64 { return h.stats().DatagramsUp }, 2))
		next := succeed(t, h.Proxier, h.options, services)
		defer next.Close()
		close(release)
		buf := make([]byte, 100)
		for _, want := range []string{"late", "later"} {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
				t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
			}
		}
		eventually(t, equals("sessions", func() int64 { return next.Snapshot()[0].SessionsActive }, 0))
	})
}

// If the successor does not know a session's endpoint, the session ends and its client gets another endpoint.
func TestHandedSessionWithoutItsEndpointBeginsAnew(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		services := []Service{{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}}}
		h.start()
		h.endpoints("udp", udpServer(t, says("a")))
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		c := dialUDP(t, h.Listeners()[0].Addr.AddrPort)
		if got := askOnce(t, c, "x"); got != "a:x" {
			t.Fatal(got)
		}
		next := prepareSuccessor(t, h.Proxier, h.options, services)
		defer next.Close()
		h.endpoints("udp", udpServer(t, says("b")))
		if n := next.Begin(passed(t, h.Suspend())); n != 0 {
			t.Errorf("%d sessions adopted, want none", n)
		}
		h.Release()
		if got := query(t, c, "x"); got != "b:x" {
			t.Error(got)
		}
	})
}

// A successor adopts no more sessions than MaxSessions, and none of a service that expects no answers.
func TestSessionsThatAreNotAdopted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Service)
		want   int
	}{
		{"all are adopted", func(*Service) {}, 3},
		{"no more than it may have", func(s *Service) { s.MaxSessions = 2 }, 2},
		{"one-way", func(s *Service) { s.Responses = -1 }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				service := Service{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}}
				h.start()
				h.endpoints("udp", udpServer(t, says("a")))
				if err := h.Apply([]Service{service}); err != nil {
					t.Fatal(err)
				}
				addr := h.Listeners()[0].Addr.AddrPort
				for range 3 {
					query(t, dialUDP(t, addr), "x")
				}
				tt.change(&service)
				next := prepareSuccessor(t, h.Proxier, h.options, []Service{service})
				defer next.Close()
				if n := next.Begin(passed(t, h.Suspend())); n != tt.want {
					t.Errorf("%d sessions adopted, want %d", n, tt.want)
				}
				h.Release()
				active := func() int64 { return next.Snapshot()[0].SessionsActive }
				eventually(t, equals("sessions", active, int64(tt.want)))
			})
		})
	}
}

// In the successor too, a session counts for its client until it ends. Sessions above the limit go on.
func TestHandedSessionCountsForItsClient(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		service := Service{
			Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}, MaxPerClient: 2, IdleTimeout: time.Hour,
		}
		h.start()
		h.endpoints("udp", udpServer(t, says("a")))
		if err := h.Apply([]Service{service}); err != nil {
			t.Fatal(err)
		}
		addr := h.Listeners()[0].Addr.AddrPort
		one, two, three := dialUDP(t, addr), dialUDP(t, addr), dialUDP(t, addr)
		query(t, one, "x")
		query(t, two, "x")
		service.MaxPerClient = 1
		next := prepareSuccessor(t, h.Proxier, h.options, []Service{service})
		defer next.Close()
		if n := next.Begin(passed(t, h.Suspend())); n != 2 {
			t.Fatalf("%d sessions adopted, want 2", n)
		}
		h.Release()
		query(t, one, "y")
		query(t, two, "y")
		eventually(t, func() error {
			_, _ = three.Write([]byte("x"))
			if next.Snapshot()[0].RefusedBy[RefusedPerClient] == 0 {
				return errPending
			}
			return nil
		})
		service.IdleTimeout = 10 * time.Millisecond
		if err := next.Apply([]Service{service}); err != nil {
			t.Fatal(err)
		}
		eventually(t, equals("sessions", func() int64 { return next.Snapshot()[0].SessionsActive }, 0))
		service.IdleTimeout = time.Hour
		if err := next.Apply([]Service{service}); err != nil {
			t.Fatal(err)
		}
		query(t, three, "z")
	})
}

// A session that cannot be handed over makes a record. A session that is handed over makes its only record in the
// successor.
func TestSessionsThatStayBehindAreTold(t *testing.T) {
	const handed, oneWay, refused = "handed", "one-way", "refused"
	forEachEngine(t, func(t *testing.T, h *house) {
		balancer := lb.NewRoundRobin()
		h.options.LoadBalancer = balancer
		next := h.records()
		h.start()
		services := []Service{
			{Name: handed, Protocol: UDP, Listen: []netip.AddrPort{loopback}},
			{Name: oneWay, Protocol: UDP, Listen: []netip.AddrPort{loopback}, Responses: -1},
			{Name: refused, Protocol: UDP, Listen: []netip.AddrPort{loopback}},
		}
		for _, s := range services {
			a := whoServer(t)
			if s.Name == refused {
				a = deadUDP(t)
			}
			balancer.OnUpdate([]lb.Endpoints{{Service: s.Name, Endpoints: []lb.Endpoint{{ID: a.String(), Addr: a}}}})
		}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		for _, l := range h.Listeners() {
			dialUDP(t, l.Addr.AddrPort).Write([]byte("x"))
		}
		eventually(t, func() error {
			for _, s := range h.Snapshot() {
				if s.DatagramsUp != 1 || s.Service == handed && s.DatagramsDown != 1 ||
					s.Service == refused && s.DialsFailed != 1 {
					return fmt.Errorf("%s: got %+v", s.Service, s)
				}
			}
			return nil
		})
		successor := succeed(t, h.Proxier, h.options, services)
		got := map[string]string{}
		for range 2 {
			r := next()
			got[r.Service] = r.Reason
		}
		if got[oneWay] != ReasonCut || got[refused] != ReasonCut {
			t.Errorf("got %v, want both sessions cut", got)
		}
		successor.Close()
		if r := next(); r.Service != handed || r.DatagramsDown != 1 {
			t.Errorf("got %+v, want the session that was handed over", r)
		}
	})
}

// In the successor too, a session ends at the next datagram of a client that may not come.
func TestHandedSessionOfAForbiddenClientEnds(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		service := Service{Name: "udp", Protocol: UDP, Listen: []netip.AddrPort{loopback}, IdleTimeout: time.Hour,
			Allow: prefixes("127.0.0.0/8")}
		h.start()
		h.endpoints("udp", udpServer(t, says("a")))
		if err := h.Apply([]Service{service}); err != nil {
			t.Fatal(err)
		}
		addr := h.Listeners()[0].Addr.AddrPort
		one, two := dialUDP(t, addr), dialFrom(t, "127.0.0.2", addr)
		query(t, one, "x")
		query(t, two, "x")
		service.Deny = prefixes("127.0.0.2/32")
		next := prepareSuccessor(t, h.Proxier, h.options, []Service{service})
		defer next.Close()
		if n := next.Begin(passed(t, h.Suspend())); n != 2 {
			t.Fatalf("%d sessions adopted, want 2", n)
		}
		h.Release()
		eventually(t, func() error {
			_, _ = two.Write([]byte("refused"))
			if s := next.Snapshot()[0]; s.RefusedBy[RefusedNotAllowed] == 0 || s.SessionsActive != 1 {
				return errPending
			}
			return nil
		})
		query(t, one, "y")
	})
}
