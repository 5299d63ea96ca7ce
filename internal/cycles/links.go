package cycles

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A period is the time during which a link was allowed.
type period struct{ since, until time.Time }

// remembered is how long a link that is gone keeps its precedence. While an instance restarts, a user must not be able
// to take its place by pointing another service back to the instance's own service.
const remembered = time.Minute

// rememberLocked records that the allowed links of v are allowed now, and forgets links that have been gone for longer
// than remembered.
func (d *Detector) rememberLocked(v *view) {
	now := time.Now()
	for l := range v.in {
		p := d.history[l]
		if p.since.IsZero() {
			p.since = now
		}
		d.history[l] = period{p.since, now}
	}
	maps.DeleteFunc(d.history, func(_ Link, p period) bool { return now.Sub(p.until) > remembered })
}

// Links returns the allowed links, for Prefer in another process.
func (d *Detector) Links() []Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	var links []Link
	for l := range d.view.Load().in {
		links = append(links, l)
	}
	d.sortLocked(links, nil)
	return links
}

// Prefer gives links that another process has allowed precedence over new ones. Call it before Listen.
func (d *Detector) Prefer(links []Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for i, l := range links {
		d.history[l] = period{now.Add(time.Duration(i-len(links)) * time.Nanosecond), now}
	}
}

// linksLocked returns the links that all suspects make, in order of precedence.
func (d *Detector) linksLocked(v *view) (links []Link) {
	static := map[Link]bool{}
	for service, suspects := range d.suspects {
		for _, network := range d.networks[service] {
			for _, e := range suspects {
				for _, addr := range d.addressesLocked(e) {
					for _, l := range v.reached(network, addr) {
						link := Link{network, service, l.service}
						if _, known := static[link]; l.service != "" && !known {
							links = append(links, link)
							static[link] = false
						}
						if d.static[service][e.Address()] {
							static[link] = true
						}
					}
				}
			}
		}
	}
	d.sortLocked(links, static)
	return links
}

// sortLocked sorts links by precedence: first static links, then links that were allowed before, oldest first, then all
// others by name.
func (d *Detector) sortLocked(links []Link, static map[Link]bool) {
	rank := func(l Link) int {
		switch {
		case static[l]:
			return 0
		case !d.history[l].since.IsZero():
			return 1
		}
		return 2
	}
	slices.SortFunc(links, func(a, b Link) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), d.history[a].since.Compare(d.history[b].since),
			strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), cmp.Compare(a.Network, b.Network))
	})
}

// addressesLocked returns the addresses of an endpoint. For a host name, it returns the known addresses that are unfit
// or may reach a listener.
func (d *Detector) addressesLocked(e lb.Endpoint) (addrs []lb.Addr) {
	if e.Host == "" {
		return []lb.Addr{addressOf(e)}
	}
	if isLocalhost(e.Host) {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			addrs = append(addrs, atPort(netip.AddrPortFrom(a, e.Addr.Port())))
		}
	}
	if n := d.names[e.Address()]; n != nil {
		for _, a := range n.addrs {
			addrs = append(addrs, atPort(a))
		}
	}
	return addrs
}

// addressOf returns the address of an endpoint without a host name.
func addressOf(e lb.Endpoint) lb.Addr {
	if e.Path != "" {
		return atPath(e.Path)
	}
	return atPort(unmapped(e.Addr))
}

// verdictLocked returns the reason why an endpoint must not get clients, and whether there is one. The function barrier
// judges one address. An endpoint with a host name is out only if none of its addresses may be dialled, because Check
// keeps clients from the forbidden ones. The name localhost is an exception: it always means this host, so one
// forbidden address is enough.
func (d *Detector) verdictLocked(
	service string, e lb.Endpoint, barrier func(lb.Network, lb.Addr) Verdict,
) (Verdict, bool) {
	n := d.names[e.Address()]
	all := e.Host != "" && !isLocalhost(e.Host)
	if all && (n == nil || !n.whole) {
		return Verdict{}, false
	}
	networks := d.networks[service]
	if len(networks) == 0 { // without listeners, only an unfit address can be found
		networks = []lb.Network{lb.TCP}
	}
	var first Verdict
	for _, addr := range d.addressesLocked(e) {
		why := Verdict{}
		for _, network := range networks {
			if why.Reason == "" {
				why = barrier(network, addr)
			}
		}
		switch {
		case why.Reason == "" && all:
			return Verdict{}, false
		case why.Reason == "" || first.Reason != "":
		case e.Host == "":
			first = Verdict{Reason: why.Reason, Text: fmt.Sprintf("%s is %s", addr, why.Text)}
		default:
			first = Verdict{Reason: why.Reason, Text: fmt.Sprintf("%s is %s, which is %s", e.Address(), addr, why.Text)}
		}
	}
	return first, first.Reason != ""
}
