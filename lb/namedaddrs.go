package lb

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A NamedAddr is an address of a host name, with a port. A Resolver records in it whether the address fails. An address
// that has failed comes last in the order of dials for minEjection. The time doubles with each further failure, up to
// maxEjection, as it does for endpoints.
type NamedAddr struct {
	key   namedAddrKey
	moves atomic.Uint32 // how often users of the address should have moved to another address

	times int     // failures since the address was last reached; guarded by Resolver.mu
	until instant // the address comes last until then; guarded by Resolver.mu
}

type namedAddrKey struct {
	network Network
	addr    netip.AddrPort
}

// Addr returns the address and port.
func (a *NamedAddr) Addr() netip.AddrPort { return a.key.addr }

// Moves returns how often users of the address should have moved to another address of the same name. The count rises
// when this address fails while another one does not. Moves costs one atomic load.
func (a *NamedAddr) Moves() uint32 { return a.moves.Load() }

// namedAddrs holds the addresses that are in use or have failed.
type namedAddrs struct {
	all     map[namedAddrKey]*NamedAddr
	failing atomic.Int64 // addresses that have failed since they were last reached; may be read without a lock
}

// maxNamedAddrs limits how many addresses without failures are remembered.
const maxNamedAddrs = 4 * maxNames

func (s *namedAddrs) get(k namedAddrKey, now instant) *NamedAddr {
	a := s.all[k]
	if a != nil {
		return a
	}
	if len(s.all) >= maxNamedAddrs {
		for k, old := range s.all {
			if old.times == 0 || now.sub(old.until) > forgetEjections {
				s.reached(old)
				delete(s.all, k)
			}
		}
	}
	a = &NamedAddr{key: k}
	s.all[k] = a
	return a
}

func (s *namedAddrs) isFailing(k namedAddrKey, now instant) bool {
	a := s.all[k]
	return a != nil && now < a.until
}

// add counts a failure of a. While a is already failing, add does nothing, because further failures are no news.
func (s *namedAddrs) add(a *NamedAddr, now instant) {
	if now < a.until {
		return
	}
	if a.times == 0 {
		s.failing.Add(1)
	}
	a.until = now.add(min(minEjection<<min(a.times, 16), maxEjection))
	a.times++
}

func (s *namedAddrs) reached(a *NamedAddr) {
	if a.times > 0 {
		s.failing.Add(-1)
	}
	a.times, a.until = 0, 0
}

// Use returns the NamedAddr of an address of a host name.
func (r *Resolver) Use(network Network, addr netip.AddrPort) *NamedAddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs.get(namedAddrKey{network, addr}, r.clock.now())
}

// Failed records that an address of e's host name could not be reached. The address comes last in the order of dials
// for a while. Failed reports whether the name has another address that is not known to fail. If there is no such
// address, the Resolver soon looks the name up again.
func (r *Resolver) Failed(network Network, e Endpoint, addr netip.Addr) (others bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	a := r.addrs.get(namedAddrKey{network, netip.AddrPortFrom(addr.Unmap(), e.Addr.Port())}, now)
	r.addrs.add(a, now)
	n := r.names[e.Host]
	if n == nil {
		return false
	}
	for _, other := range n.addrs {
		if !r.addrs.isFailing(namedAddrKey{network, netip.AddrPortFrom(other, e.Addr.Port())}, now) {
			a.moves.Add(1)
			return true
		}
	}
	n.failed = now
	r.fresh.Delete(e.Host)
	return false
}

// Reached records that an address of a host name was reached. Reached costs one atomic load if no address has failed.
func (r *Resolver) Reached(network Network, addr netip.AddrPort) {
	if r.addrs.failing.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.addrs.all[namedAddrKey{network, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}]; a != nil {
		r.addrs.reached(a)
	}
}

// Order returns addrs, which are addresses of e's host name, in the order in which to dial them. Failed addresses come
// last, in the order in which their waiting times end. Order does not change addrs, but may return addrs itself.
func (r *Resolver) Order(network Network, e Endpoint, addrs []netip.Addr) []netip.Addr {
	if r.addrs.failing.Load() == 0 || len(addrs) < 2 {
		return addrs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	waits := func(a netip.Addr) time.Duration {
		one := r.addrs.all[namedAddrKey{network, netip.AddrPortFrom(a, e.Addr.Port())}]
		if one == nil {
			return 0
		}
		return max(0, one.until.sub(now))
	}
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return int(waits(a) - waits(b)) })
	return addrs
}
