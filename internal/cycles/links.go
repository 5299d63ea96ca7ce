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

// A period is when a link could be followed.
type period struct{ since, until time.Time }

// remembered is how long a link that is gone keeps its place before others: an instance that restarts must not find
// that another service has been made to lead back to its own meanwhile.
const remembered = time.Minute

// rememberLocked notes that the links that v lets be followed are followed now, and forgets those that have been gone
// for long.
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

// Links returns the links that may be followed, for Prefer of another process.
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

// Prefer gives links that another process has followed their place before others. Call it before Listen.
func (d *Detector) Prefer(links []Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for i, l := range links {
		d.history[l] = period{now.Add(time.Duration(i-len(links)) * time.Nanosecond), now}
	}
}

// linksLocked returns all links that endpoints make, in order of precedence.
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

// sortLocked sorts links by precedence: static ones, then those that have been in, the oldest first, then others by
// name.
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

// addressesLocked returns the addresses of an endpoint; of a host name, those that are known and of interest.
func (d *Detector) addressesLocked(e lb.Endpoint) (addrs []netip.AddrPort) {
	if e.Host == "" {
		return []netip.AddrPort{unmapped(e.Addr)}
	}
	if isLocalhost(e.Host) {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			addrs = append(addrs, netip.AddrPortFrom(a, e.Addr.Port()))
		}
	}
	if n := d.names[e.Address()]; n != nil {
		addrs = append(addrs, n.addrs...)
	}
	return addrs
}

// verdictLocked returns why an endpoint must not get clients, and whether there is such a reason; barrier says that of
// its addresses. One with a host name is out if none of its addresses may be dialled: the others are, and Check sees to
// it that only they are. The exception is localhost, for whoever writes that means this host, whatever comes first.
func (d *Detector) verdictLocked(
	service string, e lb.Endpoint, barrier func(lb.Network, netip.AddrPort) Verdict,
) (Verdict, bool) {
	n := d.names[e.Address()]
	all := e.Host != "" && !isLocalhost(e.Host)
	if all && (n == nil || !n.whole) {
		return Verdict{}, false
	}
	networks := d.networks[service]
	if len(networks) == 0 { // what listens for it is gone: only that its address is fit can be said
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
