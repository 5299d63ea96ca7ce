package cycles

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A name is what is known of a host name, with a port, that has come to something here.
type name struct {
	addrs []netip.AddrPort // those of its addresses that are unfit, or where something listens
	whole bool             // these are all that it has
}

const (
	lookUpEvery = 10 * time.Second // the names that are known
	lookUpTime  = 5 * time.Second  // for one name
)

// isLocalhost reports whether a host name is that of loopback (RFC 6761, 6.3).
func isLocalhost(host string) bool {
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// learn notes that the host name of e has come to addr. Its set will be judged anew when it has been looked up.
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

// look returns a view in which everything counts that has been learnt so far.
func (d *Detector) look() *view {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evaluateLocked(d.view.Load())
	return d.view.Load()
}

// followNames looks up the known names when there is a new one, and now and then, until ctx ends.
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

// lookUpNames looks up the known names that some endpoint has, one after the other, and forgets those that come to
// nothing here any more.
func (d *Detector) lookUpNames(ctx context.Context) {
	different := false
	for _, e := range d.knownNames() {
		limited, cancel := context.WithTimeout(ctx, lookUpTime)
		addrs, err := d.lookup(limited, e.Host)
		cancel()
		if err != nil || len(addrs) == 0 { // nor can it be dialled
			d.log.Debug("host name not looked up", "host", e.Host, "error", err)
			continue
		}
		different = d.note(e, addrs) || different
	}
	if different {
		d.changed()
	}
}

// knownNames returns an endpoint for each of the known names, and forgets names that no endpoint has.
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

// note takes the addresses that the host name of e has now, and reports whether that is something new.
func (d *Detector) note(e lb.Endpoint, addrs []netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, n := d.view.Load(), &name{whole: true}
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), e.Addr.Port())
		if v.ordinary(lb.TCP, addr) && v.ordinary(lb.UDP, addr) {
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
