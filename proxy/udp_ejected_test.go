package proxy

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// clientsOf returns n clients whose sessions are with the endpoint that answers with name, and n clients with other
// endpoints.
func clientsOf(t *testing.T, addr func() *net.UDPConn, name string, n int) (its, others []*net.UDPConn) {
	t.Helper()
	for len(its) < n || len(others) < n {
		c := addr()
		if got := askOnce(t, c, "x"); got == name+":x" {
			its = append(its, c)
		} else {
			others = append(others, c)
		}
	}
	return its, others
}

// eject reports a failed dial to the endpoint with this ID, which ejects it.
func (h *house) eject(id string) {
	h.Helper()
	for range 100 {
		m, err := h.balancer.NextEndpoint("s", loopback, lb.Tried{})
		if err != nil {
			h.Fatal(err)
		}
		found := m.ID == id
		if found {
			m.Failed(lb.Refused)
		}
		m.Done()
		if found {
			return
		}
	}
	h.Fatalf("%s is never picked", id)
}

// Sessions of an ejected endpoint move to another endpoint at their next datagram, which is not lost. Sessions of other
// endpoints stay. The ejected endpoint still answers here, so an answer from it would show that it was used.
func TestUDPSessionsOfAnEjectedEndpointAreRepicked(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		a, b, c := udpServer(t, says("a")), udpServer(t, says("b")), udpServer(t, says("c"))
		h.balancer.Configure("s", lb.Options{Network: lb.UDP}) // an ejection for TCP may end too soon
		addr := h.serve(Service{Protocol: UDP}, a, b, c)
		ejected, others := clientsOf(t, func() *net.UDPConn { return dialUDP(t, addr) }, "a", 10)
		before := h.stats().Sessions
		h.eject(a.String())
		for i, conn := range ejected {
			if got := askOnce(t, conn, "y"); got == "a:y" {
				t.Errorf("client %d was sent to the ejected endpoint", i)
			}
		}
		for _, conn := range others {
			askOnce(t, conn, "y")
		}
		if n := h.stats().Sessions - before; n != int64(len(ejected)) {
			t.Errorf("%d sessions began, want %d: those of other endpoints stay", n, len(ejected))
		}
	})
}

// A service keeps its sessions if it ignores ejections, always or because too many endpoints are ejected.
func TestUDPSessionsStayWhereEjectionsAreIgnored(t *testing.T) {
	for _, o := range []lb.Options{{Network: lb.UDP, MaxFails: -1}, {Network: lb.UDP, MinAvailable: 60}} {
		t.Run(fmt.Sprint(o.MaxFails), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				h.balancer.Configure("other", lb.Options{Network: lb.UDP})
				h.balancer.Configure("s", o)
				a, b := udpServer(t, says("a")), udpServer(t, says("b"))
				addr := h.serve(Service{Protocol: UDP}, a, b)
				its, _ := clientsOf(t, func() *net.UDPConn { return dialUDP(t, addr) }, "a", 3)
				h.endpoints("other", a)
				m, err := h.balancer.NextEndpoint("other", loopback, lb.Tried{})
				if err != nil {
					t.Fatal(err)
				}
				m.Failed(lb.Refused)
				m.Done()
				for _, conn := range its {
					if got := askOnce(t, conn, "y"); got != "a:y" {
						t.Errorf("got %q, want a still", got)
					}
				}
			})
		})
	}
}

// A session that tries an ejected endpoint again stays with it after its first datagram.
func TestUDPSessionThatTriesAnEndpointStays(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{Network: lb.UDP})
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close() // the server is silent, so the trial goes on
		a := server.LocalAddr().(*net.UDPAddr).AddrPort()
		addr := h.serve(Service{Protocol: UDP}, a, udpServer(t, says("b")))
		h.eject(a.String())
		buf := make([]byte, 10)
		clients := map[string]*net.UDPConn{}
		var tries *net.UDPConn
		eventually(t, func() error { // sessions are with b until the ejection ends
			name := fmt.Sprint(len(clients))
			clients[name] = dialUDP(t, addr)
			clients[name].Write([]byte(name))
			server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			n, err := server.Read(buf)
			tries = clients[string(buf[:n])]
			return err
		})
		tries.Write([]byte("second"))
		server.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := server.Read(buf); err != nil || string(buf[:n]) != "second" {
			t.Errorf("got %q, %v, want second", buf[:n], err)
		}
	})
}
