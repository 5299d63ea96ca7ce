package cycles

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// A host holds what is known of this host's addresses, without zones.
type host struct {
	local     map[netip.Addr]bool // without loopback addresses
	broadcast map[netip.Addr]bool // broadcast addresses of the interfaces' IPv4 networks
}

// hostOf returns a host with these addresses and prefix lengths on its interfaces.
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

// broadcastOf returns the last address of an IPv4 network, which is its broadcast address. Networks of one or two hosts
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

// is reports whether a dial of the address stays on this host. For a link-local address the answer may belong to
// another link; see onItsLink.
func (h *host) is(a netip.Addr) bool { return a.IsLoopback() || h.local[bare(a)] }

// unfit describes why no instance can have an address. unfit returns an empty string if an instance can have the
// address.
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

// bare returns an address in the form for comparisons: without a zone, and as IPv4 if it is an IPv4-mapped address.
func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// named returns an address with its zone as an interface's name. A zone may also be an interface's index, which means
// the same.
func named(a netip.Addr) netip.Addr {
	if n, err := strconv.Atoi(a.Zone()); err == nil {
		if i, err := net.InterfaceByIndex(n); err == nil {
			return a.WithZone(i.Name)
		}
	}
	return a
}

// onItsLink reports whether a link-local address belongs to the interface in its zone. onItsLink asks the system each
// time, because such addresses are rare.
func onItsLink(a netip.Addr) bool {
	i, err := net.InterfaceByName(named(a).Zone())
	if err != nil {
		return true // such an address cannot be dialled
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

// Intervals between reads of the interfaces' addresses. readAtLeast is for kernels that do not report changes;
// readAtMost limits reads after reported changes.
const (
	readAtLeast = 10 * time.Second
	readAtMost  = 100 * time.Millisecond
)

// followHost reads the interfaces' addresses after each element of changed, and at least every readAtLeast, until ctx
// ends.
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

// readHost reads the interfaces' addresses. If they cannot be read, nothing changes.
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
