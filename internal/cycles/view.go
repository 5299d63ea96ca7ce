package cycles

import (
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
)

// A view is what is known at one moment. It does not change, so that Check reads it without a lock.
type view struct {
	host      *host
	listeners map[place][]listener
	in        map[Link]bool   // links that may be followed
	out       map[Link]string // those that may not, and what their listeners are
	names     map[string]bool // "host:port" of the endpoints whose host name is known to come to something here
}

// A place is what listeners have in common that may be dialled at the same address.
type place struct {
	network lb.Network
	port    uint16
	addr    netip.Addr // without its zone
}

// A listener is one of this process.
type listener struct {
	addr    netip.Addr
	service string // empty: it is the admin API's
}

// mayBe reports whether a dial of the address may come to the listener. It does not look at zones.
func (l *listener) mayBe(h *host, a netip.Addr) bool {
	if l.addr.IsUnspecified() { // [::] takes IPv4 too
		return h.is(a) && (a.Is4() || l.addr.Is6())
	}
	return bare(l.addr) == bare(a)
}

// is reports whether a dial of the address comes to the listener.
func (l *listener) is(h *host, a netip.Addr) bool {
	switch {
	case !l.mayBe(h, a):
		return false
	case a.Zone() == "":
		return l.addr.Zone() == ""
	case l.addr.IsUnspecified():
		return onItsLink(a)
	}
	return named(l.addr) == named(a)
}

// near returns the listeners to which a dial of addr may come, those at all addresses last, without a look at others.
func (v *view) near(network lb.Network, addr netip.AddrPort) [3][]listener {
	at := place{network, addr.Port(), bare(addr.Addr())}
	wildcard4, wildcard6 := at, at
	wildcard4.addr, wildcard6.addr = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return [3][]listener{v.listeners[at], v.listeners[wildcard4], v.listeners[wildcard6]}
}

// ordinary reports whether nothing speaks against an address. For nearly all addresses that is three looks into a map.
func (v *view) ordinary(network lb.Network, addr netip.AddrPort) bool {
	if v.host.unfit(addr.Addr()) != "" {
		return false
	}
	for _, some := range v.near(network, addr) {
		for _, l := range some {
			if l.mayBe(v.host, addr.Addr()) {
				return false
			}
		}
	}
	return true
}

// reached returns the listeners that a dial of addr may come to.
func (v *view) reached(network lb.Network, addr netip.AddrPort) (all []listener) {
	for _, some := range v.near(network, addr) {
		for _, l := range some {
			if l.is(v.host, addr.Addr()) {
				all = append(all, l)
			}
		}
	}
	return all
}

// always returns why clients of a service must not be sent to addr, whatever other endpoints there are; without a
// Reason if nothing of that kind is known.
func (v *view) always(service string, network lb.Network, addr netip.AddrPort) Verdict {
	if text := v.host.unfit(addr.Addr()); text != "" {
		return Verdict{Reason: Unfit, Text: text}
	}
	for _, l := range v.reached(network, addr) {
		switch l.service {
		case "":
			return Verdict{Reason: Loop, Text: "the admin API of this Lictor"}
		case service:
			return Verdict{Reason: Loop, Text: "where this service listens"}
		}
	}
	return Verdict{}
}

// barrier returns why clients of a service must not be sent to addr, without a Reason if they may, and whether that is
// certain: it is not for a link that has not been looked at.
func (v *view) barrier(service string, network lb.Network, addr netip.AddrPort) (why Verdict, certain bool) {
	if why := v.always(service, network, addr); why.Reason != "" {
		return why, true
	}
	certain = true
	for _, l := range v.reached(network, addr) {
		link := Link{network, service, l.service}
		if text, out := v.out[link]; out {
			return Verdict{Reason: Loop, Text: text}, true
		}
		certain = certain && v.in[link]
	}
	return Verdict{}, certain
}
