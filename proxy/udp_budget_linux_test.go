package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// taken is how many descriptors of the budget are taken.
func (b *budget) taken() int64 {
	for n := b.total; n > 0; n-- {
		if b.TryAcquire(n) {
			b.Release(n)
			return b.total - n
		}
	}
	return b.total
}

// A one-way session has no descriptor to give back, not even one that ends before its endpoint's name is resolved.
func TestUDPOneWayByHostNameKeepsTheBudget(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 1
		addr := h.serve(Service{Protocol: UDP, Responses: -1, IdleTimeout: 50 * time.Millisecond})
		before := h.budget.taken()
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
			{ID: "name", Host: "not a name", Addr: netip.AddrPortFrom(netip.Addr{}, 9)},
		}}})
		c := dialUDP(t, addr)
		for i := range 8 {
			eventually(t, func() error {
				c.Write([]byte("x"))
				return equals("dials failed", func() bool { return h.stats().DialsFailed > int64(i) }, true)()
			})
		}
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		eventually(t, equals("descriptors taken", h.budget.taken, before))
	})
}
