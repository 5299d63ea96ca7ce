package cycles

import (
	"net/netip"
	"path/filepath"

	"github.com/lictor-proxy/lictor/lb"
)

// A view is an immutable snapshot of what is known, so that Check can read it without a lock.
type view struct {
	host      *host
	listeners map[place][]listener
	in        map[Link]bool   // allowed links
	out       map[Link]string // forbidden links, with descriptions of their listeners
	names     map[string]bool // "host:port" of the names that may lead to a listener or an unfit address
}

// A place is an address and port, or a path, to which several listeners may belong.
type place struct {
	network lb.Network
	port    uint16
	addr    netip.Addr // without zone
	path    string     // of a Unix socket; addr and port are zero
}

// placeOf returns the place of an address.
func placeOf(network lb.Network, addr lb.Addr) place {
	return place{network, addr.AddrPort.Port(), bare(addr.AddrPort.Addr()), addr.Path}
}

// atPort returns the lb.Addr of an IP address and port.
func atPort(addr netip.AddrPort) lb.Addr { return lb.Addr{AddrPort: addr} }

// atPath returns the lb.Addr of a Unix socket. The result is the same for all names of the socket's folder.
func atPath(path string) lb.Addr {
	if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(folder, filepath.Base(path))
	}
	return lb.Addr{Path: path}
}

// A listener is a listener of this process.
type listener struct {
	addr    netip.Addr
	service string // empty for the admin API
}

// mayBe reports whether a dial of the address may reach the listener. mayBe ignores zones.
func (l *listener) mayBe(h *host, a netip.Addr) bool {
	if l.addr.IsUnspecified() { // [::] accepts IPv4 too
		return h.is(a) && (a.Is4() || l.addr.Is6())
	}
	return bare(l.addr) == bare(a)
}

// is reports whether a dial of the address reaches the listener.
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

// near returns the listeners that a dial of addr may reach: those at the address itself, then those at 0.0.0.0 and at
// [::].
func (v *view) near(network lb.Network, addr lb.Addr) [3][]listener {
	at := placeOf(network, addr)
	if addr.Path != "" {
		return [3][]listener{v.listeners[at]}
	}
	wildcard4, wildcard6 := at, at
	wildcard4.addr, wildcard6.addr = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return [3][]listener{v.listeners[at], v.listeners[wildcard4], v.listeners[wildcard6]}
}

// ordinary reports whether an address is neither unfit nor near a listener. For most addresses this takes three map
// lookups.
func (v *view) ordinary(network lb.Network, addr lb.Addr) bool {
	if v.unfit(addr) != "" {
		return false
	}
	for _, some := range v.near(network, addr) {
		for _, l := range some {
			if addr.Path != "" || l.mayBe(v.host, addr.AddrPort.Addr()) {
				return false
			}
		}
	}
	return true
}

// reached returns the listeners that a dial of addr reaches.
func (v *view) reached(network lb.Network, addr lb.Addr) (all []listener) {
	for _, some := range v.near(network, addr) {
		for _, l := range some {
			if addr.Path != "" || l.is(v.host, addr.AddrPort.Addr()) {
				all = append(all, l)
			}
		}
	}
	return all
}

// unfit returns why no instance can have an address, or "".
func (v *view) unfit(addr lb.Addr) string {
	if addr.Path != "" {
		return ""
	}
	return v.host.unfit(addr.AddrPort.Addr())
}

// always returns the reason why clients of a service must never be sent to addr, whatever other endpoints exist. The
// Verdict has no Reason if there is none.
func (v *view) always(service string, network lb.Network, addr lb.Addr) Verdict {
	if text := v.unfit(addr); text != "" {
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

// barrier returns the reason why clients of a service must not be sent to addr; the Verdict has no Reason if they may.
// certain reports whether the Verdict is final. A Verdict without a Reason is not final while a Link from the service
// to a listener at addr has not been judged.
func (v *view) barrier(service string, network lb.Network, addr lb.Addr) (why Verdict, certain bool) {
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
