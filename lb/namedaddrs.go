package lb

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A NamedAddr is an address of a host name, at a port. A Resolver notes in it whether the address fails. What holds for
// endpoints holds for the addresses of a name: one that has failed comes last for minEjection, and for twice as long
// after each further failure, up to maxEjection.
type NamedAddr struct {
	key   namedAddrKey
	moves atomic.Uint32 // how often its users had better go to another address

	times int     // failures since it was last reached; guarded by Resolver.mu
	until instant // it comes last until then; guarded by Resolver.mu
}

type namedAddrKey struct {
	network Network
	addr    netip.AddrPort
}

// Addr returns the address.
func (a *NamedAddr) Addr() netip.AddrPort { return a.key.addr }

// Moves returns how often users of the address had better go to another one of its name, because it has failed and the
// other has not. It costs one atomic load.
func (a *NamedAddr) Moves() uint32 { return a.moves.Load() }

// namedAddrs are the addresses that are in use or have failed.
type namedAddrs struct {
	all     map[namedAddrKey]*NamedAddr
	failing atomic.Int64 // those that have failed since they were last reached; anybody may read it
}

// maxNamedAddrs bounds how many addresses are remembered that have not failed.
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

// add counts a failure. An address that is failing already had it before: nothing new.
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

// Use returns what is noted of an address of a host name.
func (r *Resolver) Use(network Network, addr netip.AddrPort) *NamedAddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs.get(namedAddrKey{network, addr}, r.clock.now())
}

// Failed notes that an address of the host name of e could not be reached. The address comes last for a while. It
// reports whether the name has another one that is not known to fail. If it has none, the name is soon looked up again.
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

// Reached notes that an address of a host name was reached. It costs an atomic load if no address has failed.
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

// Order returns addresses of the host name of e in the order in which to try them: those that have failed come last,
// the one that has the least time to wait first. It does not change addrs, but may return them.
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
