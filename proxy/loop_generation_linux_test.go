package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// generations returns the generations of the pairs and sessions of the first loop.
func (h *house) generations() (all []generation) {
	l := h.engine.(*loopEngine).loops[0]
	l.do(func() {
		for _, s := range l.sockets {
			switch s := s.(type) {
			case *loopPair:
				all = append(all, s.thisUse())
			case *loopSession:
				all = append(all, s.thisUse())
			}
		}
	})
	return all
}

// isOver returns true for a use that has ended, even when the pair or session already serves another client.
func TestGenerationEndsWithItsUse(t *testing.T) {
	for _, tt := range []struct {
		name     string
		service  Service
		endpoint netip.AddrPort
		client   func(t *testing.T, at netip.AddrPort) io.Closer
	}{
		{"pair", Service{}, tcpServer(t, echo), func(t *testing.T, at netip.AddrPort) io.Closer {
			c := dialTCP(t, at)
			exchange(t, c, "hello")
			return c
		}},
		{"session", Service{Protocol: UDP, IdleTimeout: drainQuiet}, udpServer(t, echoUDP),
			func(t *testing.T, at netip.AddrPort) io.Closer {
				c := dialUDP(t, at)
				askOnce(t, c, "hello")
				return c
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &house{T: t, balancer: lb.NewRoundRobin()}
			h.options = Options{LoadBalancer: h.balancer, Loops: 1}
			t.Cleanup(func() { h.Proxier.Close() })
			at := h.serve(tt.service, tt.endpoint)
			isOver := func(g generation) (over bool) {
				h.engine.(*loopEngine).loops[0].do(func() { over = g.isOver() })
				return over
			}
			first := tt.client(t, at)
			before := h.generations()
			if len(before) != 1 || isOver(before[0]) {
				t.Fatalf("got %d uses, want one that has not ended", len(before))
			}
			first.Close()
			eventually(t, equals("uses", func() int { return len(h.generations()) }, 0))
			if !isOver(before[0]) {
				t.Error("isOver is false for a use that has ended")
			}
			defer tt.client(t, at).Close()
			after := h.generations()
			if len(after) != 1 || after[0].current != before[0].current {
				t.Fatal("the next client did not reuse the pair or session, so the test is void")
			}
			if !isOver(before[0]) || isOver(after[0]) {
				t.Error("isOver confuses the next use with the ended one")
			}
		})
	}
}

// An endpoint that resets each connection makes its clients redial, which a loop does a moment later. If a client
// leaves meanwhile and its pair serves another client, the loop must not dial for the new client. Every connection
// ends.
func TestRecycledPairsAreNotRedialled(t *testing.T) {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.options = Options{LoadBalancer: h.balancer, Loops: 1}
	t.Cleanup(func() { h.Proxier.Close() })
	a, b := tcpServer(t, resetTCP), tcpServer(t, resetTCP)
	at := h.serve(Service{}, a, b)
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 200 {
				resetOne(at)
			}
		}()
	}
	for range 4 {
		<-done
	}
	eventually(t, equals("connections", h.accepted, 0))
	eventually(t, equals("endpoints in use", func() int64 { return h.balancer.Snapshot()[0].Open }, 0))
	h.endpoints("s", tcpServer(t, echo))
	exchange(t, dialTCP(t, at), "hello")
}

// resetOne connects to at and resets the connection, unless the peer resets it first.
func resetOne(at netip.AddrPort) {
	if c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at)); err == nil {
		resetTCP(c)
	}
}
