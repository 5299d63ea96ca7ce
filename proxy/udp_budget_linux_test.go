package proxy

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A one-way session has no descriptor to give back, even if it ends before its endpoint's name is resolved.
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

// A loop that ends sessions of another loop takes only their descriptors, however late the other loop ends them.
func TestUDPDescriptorsOfAnotherLoopAreTakenOnce(t *testing.T) {
	onLoops(t, 2, func(t *testing.T, h *house) {
		server := udpServer(t, func(b []byte) []byte {
			if string(b) == "hold" {
				return nil
			}
			return b
		})
		addr := h.serve(Service{Protocol: UDP, MaxSessions: 1, Responses: 1}, server)
		before := h.budget.taken()
		shards := h.shards(t)
		s := shards[0].socket.service.Load()
		var clients [2][]*net.UDPConn // by the loop that serves them
		for len(clients[0]) == 0 || len(clients[1]) == 0 {
			c, n := dialUDP(t, addr), s.at(0).sessions.Load()
			query(t, c, "x")
			if s.at(0).sessions.Load() > n {
				clients[0] = append(clients[0], c)
			} else {
				clients[1] = append(clients[1], c)
			}
		}
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		clients[0][0].Write([]byte("hold"))
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 1))
		stuck := make(chan struct{})
		shards[0].loop.post(func() { <-stuck })
		for range 10 {
			query(t, clients[1][0], "x")
		}
		close(stuck)
		eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
		eventually(t, equals("descriptors taken", h.budget.taken, before))
	})
}
