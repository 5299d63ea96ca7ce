package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// sockets returns how many UDP sockets this host has at each listener's address. A socket that several processes or
// proxiers share counts once. The kernel skips or repeats lines of its table while sockets of others come and go, so
// sockets reads it until two readings agree.
func sockets(t *testing.T, listeners []Listener) (counts []int) {
	t.Helper()
	eventually(t, func() error {
		before := counts
		if counts = socketsOnce(t, listeners); before == nil || !slices.Equal(before, counts) {
			return fmt.Errorf("the numbers of sockets are %v, and were %v", counts, before)
		}
		return nil
	})
	return counts
}

func socketsOnce(t *testing.T, listeners []Listener) (counts []int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	counts = []int{}
	for _, l := range listeners {
		if l.Protocol == UDP {
			ip := l.Addr.AddrPort.Addr().As4()
			at := fmt.Sprintf(": %08X:%04X ", binary.NativeEndian.Uint32(ip[:]), l.Addr.AddrPort.Port())
			counts = append(counts, strings.Count(string(table), at))
		}
	}
	return counts
}

// On a host with many processors and few descriptors, what grows with the processors leaves descriptors for traffic.
func TestUDPListenersTakeFewSocketsOnManyProcessors(t *testing.T) {
	for _, tt := range []struct {
		loops, udp, tcp int
		limit           int64
		sockets         int // of each listener
	}{
		{loops: 1, udp: 3, tcp: 3, limit: 1024, sockets: 1},
		{loops: 2, udp: 40, limit: 1024, sockets: 2},
		{loops: 4, udp: 40, tcp: 1, limit: 20000, sockets: 4},
		{loops: 64, udp: 40, limit: 1024, sockets: 2},
		{loops: 64, udp: 1, tcp: 1, limit: 20000, sockets: 64},
		{loops: 64, udp: 40, limit: 4096, sockets: 11},
		{loops: 128, udp: 50, tcp: 50, limit: 1024, sockets: 2},
	} {
		name := fmt.Sprintf("%d loops, %d and %d services, limit %d", tt.loops, tt.udp, tt.tcp, tt.limit)
		t.Run(name, func(t *testing.T) {
			onLoops(t, tt.loops, func(t *testing.T, h *house) {
				before := settledDescriptors()
				h.options.MaxDescriptors = tt.limit
				var services []Service
				for i := range tt.udp {
					services = append(services, Service{Name: fmt.Sprint("udp", i), Protocol: UDP})
				}
				for i := range tt.tcp {
					services = append(services, Service{Name: fmt.Sprint("tcp", i)})
				}
				h.serveAll(services...)
				for _, n := range sockets(t, h.Listeners()) {
					if n != tt.sockets {
						t.Fatalf("a listener has %d sockets, want %d", n, tt.sockets)
					}
				}
				fewest, most := int64(tt.udp*tt.sockets), int64(0)
				for _, l := range h.engine.(*loopEngine).loops {
					fewest, most = min(fewest, l.shards.Load()), max(most, l.shards.Load())
				}
				if most > fewest+1 {
					t.Errorf("a loop has %d sockets, another one %d", fewest, most)
				}
				if n, counted := openDescriptors()-before, int(h.budget.taken())+tt.loops*loopDescriptors; n > counted {
					t.Errorf("%d descriptors are open, %d are counted", n, counted)
				}
			})
		})
	}
}

// Two processes may have different numbers of loops, so one may take over more or fewer sockets of a listener than it
// has loops. Clients keep their sessions and lose no datagram.
func TestSuccessorsWithOtherNumbersOfLoops(t *testing.T) {
	onLoops(t, 16, func(t *testing.T, h *house) {
		h.start()
		services := []Service{{Name: "udp", Protocol: UDP, Listen: listen(loopback)}}
		h.endpoints("udp", whoServer(t), whoServer(t))
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		udp := h.Listeners()[0].Addr.AddrPort
		clients := &turners{T: t, stop: make(chan struct{})}
		for range 8 {
			clients.repeat(sameInstance(dialUDP(t, udp)))
		}
		clients.repeat(func(int) error { return newClient(udp) })
		proxiers := []*Proxier{h.Proxier}
		for _, h.options.Loops = range []int{2, 16, 1, 32} {
			clients.getOn()
			next := succeed(t, proxiers[len(proxiers)-1], h.options, services)
			proxiers = append(proxiers, next)
			if got := sockets(t, next.Listeners()); len(got) != 1 || got[0] != 16 {
				t.Errorf("%d loops: the listener has %v sockets, want 16", h.options.Loops, got)
			}
			if n := next.budget.taken(); n < 16 {
				t.Errorf("%d loops: %d descriptors are counted, want 16 at least", h.options.Loops, n)
			}
		}
		clients.getOn()
		close(clients.stop)
		clients.running.Wait()
		for _, p := range proxiers {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if err := p.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown of a proxier: %v", err)
			}
			cancel()
			if n := p.budget.taken(); n != 0 {
				t.Errorf("%d descriptors are taken at the end", n)
			}
		}
	})
}

// Even if a loop is slow to end its sessions, other loops use no more of their descriptors in advance than are reserved
// for that.
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
				shards[1].ring.first.end(endCut)
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
