package cycles

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// If many listeners share a port, an endpoint at that port is compared with few of them. Otherwise the time of a reload
// would grow with the square of their number.
func TestFewListenersAreLookedAt(t *testing.T) {
	d := New(Options{})
	var services []Service
	for i := range 1000 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 9000)
		services = append(services, Service{Name: fmt.Sprint(i), Network: lb.TCP, Listen: []lb.Addr{atPort(addr)}})
	}
	d.Listen(services, nil)
	for _, s := range services {
		n := 0
		for _, some := range d.view.Load().near(lb.TCP, s.Listen[0]) {
			n += len(some)
		}
		if n != 1 {
			t.Fatalf("an endpoint at %s is compared with %d listeners", s.Listen[0], n)
		}
	}
}
