package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

func wildcard(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
}

func TestApplyWidensAndNarrowsAnAddress(t *testing.T) {
	for _, p := range []Protocol{TCP, UDP} {
		t.Run(p.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				addr := freePort(t, p)
				var backend netip.AddrPort
				var check func()
				if p == TCP {
					backend = tcpServer(t, echo)
					c := dialTCP(t, h.serve(Service{Listen: listen(addr)}, backend))
					check = func() {
						exchange(t, c, "old")
						exchange(t, dialTCP(t, addr), "new")
					}
				} else {
					backend = udpServer(t, says("a"))
					h.serve(Service{Protocol: UDP, Listen: listen(addr)}, backend)
					c := dialUDP(t, addr)
					check = func() {
						if a, b := query(t, c, "x"), query(t, dialUDP(t, addr), "x"); a != "a:x" || b != "a:x" {
							t.Errorf("got %q and %q", a, b)
						}
					}
				}
				check()
				for range 3 {
					if got := h.serve(Service{Protocol: p, Listen: listen(wildcard(addr))},
						backend); got != wildcard(addr) {
						t.Errorf("listens on %v", got)
					}
					check()
					if got := h.serve(Service{Protocol: p, Listen: listen(addr)}, backend); got != addr {
						t.Errorf("listens on %v", got)
					}
					check()
				}
			})
		})
	}
}

func TestApplyThatCannotWidenChangesNothing(t *testing.T) {
	for _, p := range []Protocol{TCP, UDP} {
		t.Run(p.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				addr := freePort(t, p)
				old := h.serve(Service{Protocol: p, Listen: listen(addr)}, tcpServer(t, named("a")))
				nowhere := netip.MustParseAddrPort("203.0.113.1:80")
				err := h.Apply([]Service{{Name: "s", Protocol: p, Listen: listen(wildcard(addr), nowhere)}})
				if !errors.Is(err, syscall.EADDRNOTAVAIL) {
					t.Errorf("got %v", err)
				}
				if l := h.Listeners(); len(l) != 1 || l[0].Addr.AddrPort != old {
					t.Errorf("got %v, want the old listener", l)
				}
				if p == TCP && ask(t, addr) != "a" {
					t.Error("the old listener does not serve")
				}
			})
		})
	}
}

func TestApplyWidensWithoutRefusingClients(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := freePort(t, TCP)
		backend := tcpServer(t, named("a"))
		h.serve(Service{Listen: listen(addr)}, backend)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.Dial("tcp4", addr.String())
					if err == nil {
						c.Close()
					} else if errors.Is(err, syscall.ECONNREFUSED) { // see the comment of Apply
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 20 {
			next := addr
			if i%2 == 0 {
				next = wildcard(addr)
			}
			h.serve(Service{Listen: listen(next)}, backend)
		}
		close(stop)
		clients.Wait()
	})
}

func TestInheritedSocketsAreUsed(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
		if err != nil {
			t.Fatal(err)
		}
		unused, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var inherited []Inherited
		file := func(p Protocol, addr netip.AddrPort, f *os.File, err error) {
			if err != nil {
				t.Fatal(err)
			}
			inherited = append(inherited, Inherited{Protocol: p, Addr: lb.Addr{AddrPort: addr}, File: f})
		}
		tcpAddr, udpAddr := tcp.Addr().(*net.TCPAddr).AddrPort(), udp.LocalAddr().(*net.UDPAddr).AddrPort()
		f, err := tcp.(*net.TCPListener).File()
		file(TCP, tcpAddr, f, err)
		f, err = udp.File()
		file(UDP, netip.AddrPortFrom(udpAddr.Addr().Unmap(), udpAddr.Port()), f, err)
		f, err = unused.(*net.TCPListener).File()
		file(TCP, unused.Addr().(*net.TCPAddr).AddrPort(), f, err)
		early := dialTCP(t, tcpAddr) // waits in the queue of the inherited socket
		tcp.Close()
		udp.Close()
		unused.Close()

		h.options.Inherited = inherited
		h.start()
		h.endpoints("t", tcpServer(t, echo))
		h.endpoints("u", udpServer(t, says("u")))
		services := []Service{{Name: "t", Listen: listen(tcpAddr)},
			{Name: "u", Protocol: UDP, Listen: listen(inherited[1].Addr.AddrPort)}}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		if left := h.DropInherited(); len(left) != 1 || left[0].Addr != inherited[2].Addr {
			t.Errorf("unused: got %v", left)
		}
		exchange(t, early, "early")
		exchange(t, dialTCP(t, tcpAddr), "late")
		if got := query(t, dialUDP(t, netip.AddrPortFrom(loopback.Addr(), udpAddr.Port())), "x"); got != "u:x" {
			t.Errorf("got %q", got)
		}
		if err := h.Apply(nil); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp4", tcpAddr.String()); err == nil {
			c.Close()
			t.Error("the socket is still open after its listener was removed")
		}
	})
}

// A wildcard socket that systemd has opened does not count as another process on that port.
func TestInheritedSocketInTheWay(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		tcp, err := net.Listen("tcp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := tcp.(*net.TCPListener).File()
		tcp.Close()
		if err != nil {
			t.Fatal(err)
		}
		at := tcp.Addr().(*net.TCPAddr).AddrPort()
		h.options.Inherited = []Inherited{{Protocol: TCP, Addr: lb.Addr{AddrPort: at}, File: f}}
		h.start()
		wanted := netip.AddrPortFrom(loopback.Addr(), at.Port())
		err = h.Apply([]Service{{Name: "a", Listen: listen(wanted)}})
		if err == nil || errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("got %v", err)
		}
		for _, part := range []string{"inherited a socket for " + at.String(), fmt.Sprintf("listen = %q", at),
			"ListenStream=" + wanted.String()} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("got %v, want %q in it", err, part)
			}
		}
		h.DropInherited()
	})
}
