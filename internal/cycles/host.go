package cycles

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// A host is what is known of this host's addresses. Zones are left out.
type host struct {
	local     map[netip.Addr]bool // without those of loopback
	broadcast map[netip.Addr]bool // of the IPv4 networks of its interfaces
}

// hostOf returns the host whose interfaces have the addresses, each with the length of its network's prefix.
func hostOf(addrs []netip.Prefix) *host {
	h := &host{local: map[netip.Addr]bool{}, broadcast: map[netip.Addr]bool{}}
	for _, p := range addrs {
		h.local[bare(p.Addr())] = true
		if a, is := broadcastOf(p); is {
			h.broadcast[a] = true
		}
	}
	return h
}

// broadcastOf returns the last address of an IPv4 network, which is for all of its hosts. Networks of one or two hosts
// have none (RFC 3021).
func broadcastOf(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a), true
}

// is reports whether who dials the address stays on this host. Of a link-local address that may be true of another
// link: see onItsLink.
func (h *host) is(a netip.Addr) bool { return a.IsLoopback() || h.local[bare(a)] }

// unfit returns what an address is at which no instance can be; empty if one might be there.
func (h *host) unfit(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "no host's address"
	case a.IsMulticast():
		return "a multicast address"
	case a == limitedBroadcast:
		return "a broadcast address"
	case h.broadcast[a]:
		return "the broadcast address of a network of this host"
	}
	return ""
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// bare returns the address as it is compared: without a zone, and as one of IPv4 if it is one in IPv6's clothes.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// named returns the address with its zone as a name: the kernel's numbers are taken too, and mean the same.
func named(a netip.Addr) netip.Addr {
	if n, err := strconv.Atoi(a.Zone()); err == nil {
		if i, err := net.InterfaceByIndex(n); err == nil {
			return a.WithZone(i.Name)
		}
	}
	return a
}

// onItsLink reports whether a link-local address is one of the very interface that is its zone. It asks the system,
// which is all right for an address that is so rare.
func onItsLink(a netip.Addr) bool {
	i, err := net.InterfaceByName(named(a).Zone())
	if err != nil {
		return true // it cannot be dialled either
	}
	addrs, err := i.Addrs()
	for _, one := range prefixesOf(addrs) {
		if bare(one.Addr()) == bare(a) {
			return true
		}
	}
	return err != nil
}

// interfaceAddrs returns the addresses of all interfaces.
func interfaceAddrs() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	return prefixesOf(addrs), err
}

func prefixesOf(addrs []net.Addr) (all []netip.Prefix) {
	for _, one := range addrs {
		if n, ok := one.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				ones, _ := n.Mask.Size()
				all = append(all, netip.PrefixFrom(a.Unmap(), ones))
			}
		}
	}
	return all
}

// Bounds of how often the addresses of the interfaces are read: at least, for a kernel that does not tell of changes,
// and at most.
const (
	readAtLeast = 10 * time.Second
	readAtMost  = 100 * time.Millisecond
)

// followHost reads the addresses of the interfaces when changed says that they have changed, and now and then, until
// ctx ends.
func (d *Detector) followHost(ctx context.Context, changed <-chan struct{}) {
	pause := time.NewTimer(readAtLeast)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-pause.C:
		}
		d.readHost()
		pause.Reset(readAtMost)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		pause.Reset(readAtLeast)
	}
}

// readHost reads the addresses of the interfaces. That they cannot be read changes nothing.
func (d *Detector) readHost() {
	addrs, err := d.addrs()
	if err != nil {
		d.log.Debug("the addresses of this host cannot be read", "error", err)
		return
	}
	if d.setHost(hostOf(addrs)) {
		d.changed()
	}
}
