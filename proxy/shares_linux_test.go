package proxy

import (
	"net"
	"testing"
)

// However long a loop takes to notice that its sessions are to end: until then, others use no more descriptors than
// are kept back for that.
func TestUDPDescriptorsInAdvanceAreBounded(t *testing.T) {
	onLoops(t, 2, func(t *testing.T, h *house) {
		h.options.MaxDescriptors = 300
		server := udpServer(t, echoUDP)
		addr := h.serve(Service{Protocol: UDP}, server)
		shards := h.shards(t)
		atFirst := h.budget.advances.Load()
		if atFirst < 2 || atFirst > 10 {
			t.Fatalf("%d may be used in advance, which shows nothing", atFirst)
		}
		s := shards[0].socket.service.Load()
		var other []*net.UDPConn // clients of the second loop, whose sessions will have ended
		for h.stats().SessionsActive < h.budget.ceiling.Load() || len(other) < 40 {
			c, n := dialUDP(t, addr), s.at(0).sessions.Load()
			query(t, c, "x")
			if s.at(0).sessions.Load() == n {
				other = append(other, c)
			}
		}
		stuck := make(chan struct{})
		shards[0].loop.post(func() { <-stuck })
		shards[1].loop.do(func() {
			for shards[1].ring.first != nil {
				shards[1].ring.first.end(ReasonCut)
			}
		})
		h.budget.divide(nil) // no floors
		filler := h.budget.newShare()
		taken := takeAll(filler, 1)
		before := s.at(1).sessions.Load()
		for _, c := range other {
			query(t, c, "x")
		}
		if n := s.at(1).sessions.Load() - before; n < int64(len(other)) {
			t.Errorf("%d sessions began, want %d", n, len(other))
		}
		if n := h.budget.advances.Load(); n != 0 {
			t.Errorf("%d of %d descriptors are not used in advance", n, atFirst)
		}
		shards[1].loop.do(func() {
			if n := shards[1].holding.Load().count; n != atFirst {
				t.Errorf("the second loop has %d sessions, want %d", n, atFirst)
			}
		})
		close(stuck)
		filler.release(taken)
		h.Apply(nil)
		eventually(t, equals("descriptors taken", h.budget.taken, 0))
		eventually(t, equals("descriptors for use in advance", h.budget.advances.Load, atFirst))
	})
}
