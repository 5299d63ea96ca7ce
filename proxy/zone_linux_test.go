package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testnet"
)

// The zone of a link-local address is the name of an interface or its number. Listeners and endpoints accept both.
func TestZonesByNameAndNumber(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	testnet.AddAddress(t, "lo", netip.MustParsePrefix("fe80::1/64"))
	eventually(t, func() error { // the kernel adds the route a moment later
		c, err := net.Dial("tcp6", "[fe80::1%lo]:9")
		switch {
		case err == nil:
			c.Close()
		case !errors.Is(err, syscall.ECONNREFUSED):
			return err
		}
		return nil
	})
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, zone := range []string{"lo", "1"} {
			at := netip.MustParseAddrPort("[fe80::1%" + zone + "]:0")
			tcp := h.serve(Service{Listen: listen(at)}, tcpServer(t, echo))
			exchange(t, dialTCP(t, netip.AddrPortFrom(at.Addr(), tcp.Port())), "x")
			udp := h.serve(Service{Protocol: UDP, Listen: listen(at)}, udpServer(t, says("u")))
			if got := query(t, dialUDP(t, netip.AddrPortFrom(at.Addr(), udp.Port())), "x"); got != "u:x" {
				t.Errorf("listener with the zone %s: got %q", zone, got)
			}

			c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			serveUDP(t, c, says("zoned"))
			endpoint := netip.AddrPortFrom(at.Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			udp = h.serve(Service{Protocol: UDP}, endpoint)
			if got := query(t, dialUDP(t, udp), "x"); got != "zoned:x" {
				t.Errorf("endpoint with the zone %s: got %q", zone, got)
			}
		}
	})
}

func TestZoneWithoutInterface(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		for _, protocol := range []Protocol{TCP, UDP} {
			err := h.Apply([]Service{{Name: "z", Protocol: protocol,
				Listen: listen(netip.MustParseAddrPort("[fe80::1%none0]:0"))}})
			if err == nil || !strings.Contains(err.Error(), `this host has no interface "none0"`) {
				t.Errorf("%s: got %v", protocol, err)
			}
		}
	})
}
