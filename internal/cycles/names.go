package cycles

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A name holds what is known of a "host:port" that has led to a listener of this process or to an unfit address.
type name struct {
	addrs []netip.AddrPort // addresses that are unfit or may reach a listener
	whole bool             // the name has no other addresses
}

const (
	lookUpEvery = 10 * time.Second // interval of lookups of known names
	lookUpTime  = 5 * time.Second  // limit for one lookup
)

// isLocalhost reports whether a host name means loopback (RFC 6761, 6.3).
func isLocalhost(host string) bool {
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// learn records that the host name of e has the address addr, and requests a lookup. After the lookup, the sets are
// judged again.
func (d *Detector) learn(e lb.Endpoint, addr netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[e.Address()]
	if n == nil {
		n = &name{}
		d.names[e.Address()] = n
	}
	if !slices.Contains(n.addrs, addr) {
		d.names[e.Address()] = &name{addrs: append(slices.Clone(n.addrs), addr), whole: n.whole}
		select {
		case d.learnt <- struct{}{}:
		default:
		}
	}
}

// look evaluates everything that was learnt so far, and returns the new view.
func (d *Detector) look() *view {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evaluateLocked(d.view.Load())
	return d.view.Load()
}

// followNames looks up the known names when there is a new one, and every lookUpEvery, until ctx ends.
func (d *Detector) followNames(ctx context.Context) {
	again := time.NewTicker(lookUpEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.learnt:
		case <-again.C:
		}
		d.lookUpNames(ctx)
	}
}

// lookUpNames looks up the known names of endpoints, one after another. lookUpNames forgets names without suspicious
// addresses.
func (d *Detector) lookUpNames(ctx context.Context) {
	different := false
	for _, e := range d.knownNames() {
		limited, cancel := context.WithTimeout(ctx, lookUpTime)
		addrs, err := d.lookup(limited, e.Host)
		cancel()
		if err != nil || len(addrs) == 0 { // then the name cannot be dialled either
			d.log.Debug("the host name could not be looked up", "host", e.Host, "error", err)
			continue
		}
		different = d.note(e, addrs) || different
	}
	if different {
		d.changed()
	}
}

// knownNames returns an endpoint for each known name, and forgets names that no endpoint has.
func (d *Detector) knownNames() (all []lb.Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	used := map[string]lb.Endpoint{}
	for _, suspects := range d.suspects {
		for _, e := range suspects {
			if d.names[e.Address()] != nil {
				used[e.Address()] = e
			}
		}
	}
	for address := range d.names {
		if e, is := used[address]; is {
			all = append(all, e)
		} else {
			delete(d.names, address)
		}
	}
	return all
}

// note stores the present addresses of e's host name, and reports whether anything changed.
func (d *Detector) note(e lb.Endpoint, addrs []netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, n := d.view.Load(), &name{whole: true}
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), e.Addr.Port())
		if v.ordinary(lb.TCP, atPort(addr)) && v.ordinary(lb.UDP, atPort(addr)) {
			n.whole = false
		} else if !slices.Contains(n.addrs, addr) {
			n.addrs = append(n.addrs, addr)
		}
	}
	slices.SortFunc(n.addrs, netip.AddrPort.Compare)
	before := d.names[e.Address()]
	if before != nil && slices.Equal(before.addrs, n.addrs) && before.whole == n.whole {
		return false
	}
	d.names[e.Address()] = n
	if len(n.addrs) == 0 {
		delete(d.names, e.Address())
	}
	return true
}
