package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The kernel has some 28,000 local ports for outgoing sockets, which is fewer than the possible sessions. When they are
// in use, the sessions that have been idle longest end.
func TestSessionsWithoutPortsMakeRoom(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40099"), 0); err != nil {
		t.Fatal(err)
	}
	forEachEngine(t, func(t *testing.T, h *house) {
		echo, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:7")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { echo.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, src, err := echo.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				_, _ = echo.WriteToUDPAddrPort(b[:n], src)
			}
		}()
		addr := h.serve(Service{Protocol: UDP, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}},
			echo.LocalAddr().(*net.UDPAddr).AddrPort())
		const clients = 300
		for i := range clients {
			// The client's port is outside the kernel's range of local ports.
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10000 + i},
				net.UDPAddrFromAddrPort(addr))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			askUntilAnswered(t, c)
		}
		s := h.stats()
		if evicted := s.SessionsEvicted; s.SessionsActive > 100 || evicted < clients-100 {
			t.Errorf("%d sessions are active and %d were evicted, want at most 100 and at least %d",
				s.SessionsActive, evicted, clients-100)
		}
		if h.options.Engine == EngineAuto && (s.Refused != 0 || s.DatagramsDropped != 0) {
			t.Errorf("%d clients refused, %d datagrams dropped, want none", s.Refused, s.DatagramsDropped)
		}
	})
}

// A flood of new clients of one service takes all local ports. Other services still get their ports, on every loop.
func TestFloodedPortsMakeRoomForOtherServices(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40199"), 0); err != nil {
		t.Fatal(err)
	}
	port := 10000 // of clients, outside the kernel's range of local ports
	dial := func(to netip.AddrPort) *net.UDPConn {
		port++
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, net.UDPAddrFromAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	forEachEngine(t, func(t *testing.T, h *house) {
		h.options.Loops = 4
		h.options.MaxDescriptors = 1000 // each listener's sockets are on two loops
		h.start()
		var services []Service
		for i := range 50 {
			name := fmt.Sprint(i)
			at := netip.AddrPortFrom(loopback.Addr(), uint16(1000+i))
			to := netip.AddrPortFrom(loopback.Addr(), uint16(2000+i))
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Fatal(err)
			}
			serveUDP(t, c, says(name))
			h.endpoints(name, to)
			services = append(services, Service{Name: name, Protocol: UDP, Listen: listen(at), IdleTimeout: time.Hour})
		}
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		for range 300 {
			dial(services[0].Listen[0]).Write([]byte("flood"))
		}
		evicted := func() bool { return h.of("0").SessionsEvicted > 0 }
		eventually(t, equals("sessions of the flood were evicted", evicted, true))
		for i, s := range services[1:] {
			for range h.budget.ownPorts.Load() {
				if got := askOnce(t, dial(s.Listen[0]), "x"); got != fmt.Sprint(i+1, ":x") {
					t.Fatalf("got %q from service %d", got, i+1)
				}
			}
		}
		for _, s := range h.Snapshot()[1:] {
			if s.Refused != 0 || s.SessionsEvicted != 0 || s.Sessions != h.budget.ownPorts.Load() {
				t.Errorf("service %s: %+v", s.Service, s)
			}
		}
	})
}

// askUntilAnswered sends a datagram until an answer comes, as UDP clients do.
func askUntilAnswered(t *testing.T, c *net.UDPConn) {
	t.Helper()
	b := make([]byte, 100)
	for range 200 {
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(b); err == nil {
			return
		}
	}
	t.Fatal("no answer within 20 s")
}

// Each TCP connection to one endpoint takes a local port. When all are in use, the log says which setting to raise.
func TestDialWithoutPortsGivesAdvice(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40009"), 0); err != nil {
		t.Fatal(err)
	}
	forEachEngine(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		server, err := net.Listen("tcp4", "127.0.0.1:7")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() }) // the kernel completes the connections, and none is accepted
		addr := h.serve(Service{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}},
			server.Addr().(*net.TCPAddr).AddrPort())
		for i := range 11 {
			// The client's port is outside the kernel's range of local ports.
			port := 10000 + i + 100*int(h.options.Engine)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
			c, err := d.Dial("tcp4", addr.String())
			switch {
			case err == nil:
				t.Cleanup(func() { c.Close() })
			case !isReset(err): // the reset may come before Dial returns
				t.Fatalf("client %d: %v", i, err)
			}
		}
		eventually(t, func() error {
			if !strings.Contains(log.String(), "raise net.ipv4.ip_local_port_range") {
				return fmt.Errorf("no advice in the log:\n%s", log.String())
			}
			return nil
		})
	})
}
