package proxy

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A budget divides the file descriptors of the process among its services. Each service has a share of the descriptors,
// and all listeners together have one share.
//
// reserve keeps some descriptors of the process's limit for everything that is not traffic. The rest is total. The
// invariant of a budget is:
//
//	total = common + the sum of max(taken, floor) over all shares
//
// The invariant holds whenever no operation is in progress. An operation takes from one term before it adds to another.
// During an operation the right side may be below total, but is never above. No descriptor is given twice.
//
// Descriptors up to a share's floor are set aside for that share. Descriptors above the floor come from common, for
// which all shares compete. The invariant implies:
//
//   - All shares together never take more than total.
//   - A share below its floor gets its next descriptor at once, whatever the other shares have taken.
//   - No share takes more than its ceiling, which is total less the floors of the others.
//
// When common is empty, it depends on the protocol what happens to a new client:
//
//   - TCP clients wait in the kernel's queue. Descriptors that return to common go to the waiting shares in turn.
//   - UDP clients cannot wait. Of all services above their floor, the UDP session that has been idle longest ends.
//   - A TCP service below its equal part does not wait while a UDP service is above its equal part: UDP sessions end
//     for it.
//
// Each UDP session also takes a local port, and there may be fewer ports than descriptors. Ports are not counted. Each
// service has a floor of ports, computed like the floor of descriptors. When the kernel has no port left, the UDP
// session that has been idle longest ends, of all services above their floor of ports.
//
// taken counts these descriptors:
//
//	a TCP connection   2   from before it is served until both of its sockets are closed
//	a UDP session      1   from before its socket is opened until that is closed; a one-way session of a loop has none
//	a shared socket    1   likewise
//	a listener         2   while it is open; a UDP listener with more than two sockets takes 1 for each of them
//
// If a UDP session ends for another client, its descriptor passes to the share of that client. If the session belongs
// to another loop, the descriptor passes at once, and the other loop closes the socket a moment later. advance limits
// how many such descriptors there are at a time; reserve keeps them out of total.
//
// When services come and go, floors change, and no share loses what it has taken. If the others have taken so much that
// a floor cannot be set aside, the rest is owed. Descriptors that return to common then go to that floor first.
type budget struct {
	limit, reserved int64
	total           int64 // limit less reserved descriptors
	pipes           int   // number of pipes for each loop
	ports           int64 // number of ports that the kernel gives to UDP sockets

	common   atomic.Int64
	equal    atomic.Int64 // descriptors of each service if all have equal parts
	ownPorts atomic.Int64 // each service's floor of local ports
	ceiling  atomic.Int64 // the most descriptors that one service may take
	advances atomic.Int64 // how many more descriptors advance may grant

	listeners share

	waiting atomic.Bool // owed or queue has elements; changes with mu held
	mu      sync.Mutex  // guards what follows, and the goals and waiters of the shares
	shares  []*share    // shares of all present services
	owed    []*share    // shares whose floor is below its goal
	queue   []*share    // shares that wait for common, each once, in order of arrival
}

// The number of file descriptors that each kind of thing takes.
const (
	pairDescriptors    = 2 // the sockets of a TCP connection
	sessionDescriptors = 1 // the socket of a UDP session, or a shared socket

	// A TCP listener has one socket. In the portable engine it also has one client, which is accepted before the client
	// has descriptors. A UDP listener has up to two sockets; each further socket takes one more.
	listenerDescriptors = 2

	loopDescriptors = 2 // the epoll instance and the eventfd of an event loop
	pipeDescriptors = 2

	lookupDescriptors = 2 // the two sockets of a lookup: one for IPv4 addresses, one for IPv6
)

// The bounds of the arithmetic.
const (
	maxOther       = 256  // for Consul (150 watches), lookups of host names, logs, files, the Go runtime
	maxFloor       = 256  // the largest floor of a service
	maxAdvances    = 64   // the most descriptors used in advance, see advance
	maxUDPSockets  = 1024 // sockets of all UDP listeners; each listener gets at least two
	maxLookups     = 32   // lookups in progress at once, see MaxLookups
	spareListeners = 16   // listeners that a reload can always open
)

// Defaults for systems that do not report these numbers.
const (
	defaultLimit = 65536
	defaultPorts = 1 << 14 // the dynamic ports of RFC 6335
)

// other returns how many descriptors of limit are kept for everything but traffic and engines.
func other(limit int64) int64 { return min(maxOther, limit/4) }

// MaxLookups returns how many lookups of host names may be in progress at once, for a process with the given limit of
// descriptors. The sockets of all lookups take at most a quarter of the descriptors that are reserved for other uses
// than traffic. See Options.Resolver.
func MaxLookups(descriptors int64) int {
	if descriptors <= 0 {
		descriptors = defaultLimit
	}
	return int(max(min(maxLookups, other(descriptors)/4/lookupDescriptors), 1))
}

// reserve returns how many descriptors of limit are kept from traffic, and how many pipes each loop may have. kept
// includes the descriptors of the pipes. If loops is zero, the engine is the portable one, which has one pool of pipes.
func reserve(limit int64, loops int) (kept int64, pipes int) {
	pools, most := int64(1), int64(maxPipes)
	if loops > 0 {
		pools, most = int64(loops), loopPipes
	}
	each := min(most, limit/(16*pools))
	return other(limit) + int64(loops)*loopDescriptors + pools*each*pipeDescriptors, int(each)
}

// newBudget returns the budget of a process that may open limit descriptors and has loops event loops. A limit that is
// zero or negative means that the limit is not known.
func newBudget(limit int64, loops int) *budget {
	if limit <= 0 {
		limit = defaultLimit
	}
	b := &budget{limit: limit, ports: defaultPorts}
	b.reserved, b.pipes = reserve(limit, loops)
	if loops > 1 {
		advances := min(maxAdvances, max((limit-b.reserved)/64, 1))
		b.advances.Store(advances)
		b.reserved += advances
	}
	b.total = max(limit-b.reserved, 0)
	b.common.Store(b.total)
	b.listeners.budget = b
	return b
}

// newShare returns the share of a new service. The share has no floor until divide is called.
func (b *budget) newShare() *share { return &share{budget: b} }

// divide sets the floors of shares, which must be those of all present services. Shares of former services lose their
// floor.
func (b *budget) divide(shares []*share) {
	b.mu.Lock()
	former := b.shares
	for _, s := range former {
		s.goal = 0
	}
	b.keepListenersLocked()
	left := max(b.total-b.listeners.goal, 0)
	equal, floor := divided(left, int64(len(shares)))
	b.equal.Store(equal)
	_, ownPorts := divided(b.ports, int64(len(shares)))
	b.ownPorts.Store(ownPorts)
	b.ceiling.Store(left - floor*int64(max(len(shares)-1, 0)))
	for _, s := range shares {
		s.goal = floor
	}
	b.shares, b.owed = shares, nil
	all := slices.Concat(former, shares, []*share{&b.listeners})
	for _, s := range all { // shares that give up some of their floor come first
		if _, before := s.load(); s.goal < before {
			s.setFloorLocked()
		}
	}
	var granted []*waiter
	for _, s := range all[len(former):] {
		if !s.setFloorLocked() {
			b.owed = append(b.owed, s)
		}
		granted = s.grantOwnLocked(granted)
	}
	granted = b.serveLocked(granted)
	b.mu.Unlock()
	tell(granted)
}

// divided returns the equal part of each of n services, and their floor. The floor is half of the equal part, but at
// least two descriptors if the equal part has two, and at most maxFloor.
func divided(total, n int64) (equal, floor int64) {
	equal = total / max(n, 1)
	return equal, min(max(equal/2, min(equal, pairDescriptors)), maxFloor)
}

// openListener takes n descriptors for a listener. The error of openListener says what the operator can change.
func (b *budget) openListener(n int64) error {
	if b.listeners.draw(n, 0, ahead) {
		return nil
	}
	return fmt.Errorf("out of descriptors for a listener: of the %d that this process may have, %d are reserved, "+
		"and the rest is in use; raise the limit (ulimit -n, LimitNOFILE=)", b.limit, b.reserved)
}

// closeListener gives back what openListener took.
func (b *budget) closeListener(n int64) {
	b.listeners.release(n)
	b.mu.Lock()
	b.keepListenersLocked()
	if _, floor := b.listeners.load(); floor > b.listeners.goal {
		b.listeners.setFloorLocked()
	}
	granted := b.serveLocked(nil)
	b.mu.Unlock()
	tell(granted)
}

// keepListenersLocked sets the goal of the listeners' share: what they have taken, and some for new listeners.
func (b *budget) keepListenersLocked() {
	taken, _ := b.listeners.load()
	spare := max(b.total/32, min(listenerDescriptors, b.total/8))
	b.listeners.goal = taken + min(spareListeners*listenerDescriptors, spare)
}

// udpSockets returns how many sockets each of the given number of UDP listeners gets. Usually it is one for each loop.
// With many listeners or few descriptors it is less, but at least two.
func (b *budget) udpSockets(listeners, loops int) int {
	all := int(min(maxUDPSockets, b.total/8))
	return min(loops, max(all/max(listeners, 1), 2))
}

// advance lets the caller use a descriptor that another loop has given up but not closed yet. Until it is closed, one
// more descriptor is open than the shares have taken, so their number is bounded. advance returns false if too many
// descriptors are already used in advance. The caller undoes each true with endAdvance.
func (b *budget) advance() bool {
	if b.advances.Add(-1) >= 0 {
		return true
	}
	b.advances.Add(1)
	return false
}

// endAdvance undoes one advance.
func (b *budget) endAdvance() { b.advances.Add(1) }

// errOutOfDescriptors ends the dial of a UDP session that gets no descriptor.
var errOutOfDescriptors = errors.New("out of descriptors; raise the limit (ulimit -n, LimitNOFILE=)")
