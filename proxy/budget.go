package proxy

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A budget is the ledger of the process's descriptors. It divides them among the services. Its unit is one descriptor.
// Each service has a share, and all listeners together have one.
//
// Of the limit of the process, reserve keeps some back for everything that is not traffic. The rest is total. The
// invariant of the ledger is:
//
//	total = common + the sum of max(taken, floor) over all shares
//
// It holds whenever no operation is under way. An operation takes from one term before it adds to another. So meanwhile
// the right side may be less than total, and it is never more: no descriptor is given twice.
//
// What a share takes up to its floor is set aside for it. What it takes beyond that comes out of common, for which all
// shares compete. So:
//
//   - The shares never take more than total together.
//   - A share below its floor gets its next descriptor at once, whatever the others have taken.
//   - No share takes more than its ceiling: total less the floors of the others.
//
// What happens when common is empty depends on whether a client can wait:
//
//   - TCP clients wait in the kernel's queue. What is given back to common goes to the shares of their services, in
//     turn.
//   - UDP clients cannot wait. The UDP session idle longest ends, of all services that have more than their floor.
//   - A TCP service that would have no more than an equal part does not wait while a UDP service has more than that:
//     UDP sessions end for it.
//
// Each UDP session also takes a port, and there may be fewer of these. They are not counted. When the kernel has none
// left, the UDP session idle longest ends, of all services that have more sessions than their floor would be if the
// ports were divided like the descriptors.
//
// What is written down in taken, and for how long:
//
//	a TCP connection   2   from before it is served until both of its sockets are closed
//	a UDP session      1   from before its socket is opened until that is closed; a one-way session of a loop has none
//	a shared socket    1   likewise
//	a listener         2   while it is open; a UDP listener with more than two sockets takes 1 for each of them
//
// The descriptor of a UDP session that ends for another client passes to the share of that client. If another loop has
// the session, the descriptor passes at once, and the socket is closed a moment later. See advance for how many of
// these there may be; reserve keeps them out of total.
//
// When services come and go, the floors change, and no share loses what it has taken. If others have taken so much
// that a floor cannot be set aside, it is owed: what is given back to common goes there first.
type budget struct {
	limit, reserved int64
	total           int64 // limit less reserved
	pipes           int   // that each loop may have
	ports           int64 // that the kernel gives to UDP sockets

	common   atomic.Int64
	equal    atomic.Int64 // what each service would have if all had the same
	ownPorts atomic.Int64 // the floor of each service, of ports
	ceiling  atomic.Int64 // of each service
	advances atomic.Int64 // that are left, see advance

	listeners share

	waiting atomic.Bool // turns or owed has elements; changes with mu held
	mu      sync.Mutex  // guards what follows, and the goals and waiters of the shares
	shares  []*share    // of the services that there are
	owed    []*share    // those whose floor is below its goal
	queue   []*share    // those that wait for common, each once, first come, first served
}

// What descriptors are taken for.
const (
	pairDescriptors    = 2 // the sockets of a TCP connection
	sessionDescriptors = 1 // the socket of a UDP session, or a shared socket

	// A TCP listener has one socket. In the portable engine it also has a client, who is accepted before there is
	// room. A UDP listener has up to two sockets; each one beyond takes one more.
	listenerDescriptors = 2

	loopDescriptors = 2 // the epoll instance and the eventfd of an event loop
	pipeDescriptors = 2

	lookupDescriptors = 2 // the sockets of a lookup: one for IPv4 addresses, one for IPv6
)

// The bounds of the arithmetic.
const (
	maxOther       = 256  // for Consul (150 watches), lookups of host names, logs, files, the Go runtime
	maxFloor       = 256  // of a service
	maxAdvances    = 64   // see advance
	maxUDPSockets  = 1024 // of all UDP listeners, unless that is less than two for each
	maxLookups     = 32   // under way at once, see MaxLookups
	spareListeners = 16   // that a reload can open, whatever the services have taken
)

// These are used where the system does not tell.
const (
	defaultLimit = 65536
	defaultPorts = 1 << 14 // those that RFC 6335 calls dynamic
)

// other returns how many descriptors of the limit are kept for what is neither traffic nor a part of an engine.
func other(limit int64) int64 { return min(maxOther, limit/4) }

// MaxLookups is how many lookups of host names may be under way in a process that may have so many descriptors open:
// the sockets of all are at most a quarter of what is kept for other things than traffic. See Options.Resolver.
func MaxLookups(descriptors int64) int {
	if descriptors <= 0 {
		descriptors = defaultLimit
	}
	return int(max(min(maxLookups, other(descriptors)/4/lookupDescriptors), 1))
}

// reserve returns how many descriptors of the limit are kept from traffic, and how many pipes each loop may have of
// these. Zero loops stand for the portable engine, which has one pool of pipes.
func reserve(limit int64, loops int) (kept int64, pipes int) {
	pools, most := int64(1), int64(maxPipes)
	if loops > 0 {
		pools, most = int64(loops), loopPipes
	}
	each := min(most, limit/(16*pools))
	return other(limit) + int64(loops)*loopDescriptors + pools*each*pipeDescriptors, int(each)
}

// newBudget returns the budget of a process that may open limit descriptors, and has so many event loops. Zero and
// negative limits stand for one that is not known.
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

// newShare returns the share of a service. It has no floor before divide.
func (b *budget) newShare() *share { return &share{budget: b} }

// divide sets the floors of shares, which are those of all services that there are. Others have no floor any more.
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
	for _, s := range all { // first those that give
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

// divided returns the equal part of each of n services, and their floor: half of that part, or two descriptors if
// the part has as many, and no more than maxFloor.
func divided(total, n int64) (equal, floor int64) {
	equal = total / max(n, 1)
	return equal, min(max(equal/2, min(equal, pairDescriptors)), maxFloor)
}

// openListener takes n descriptors for a listener, or says what to change.
func (b *budget) openListener(n int64) error {
	if b.listeners.draw(n, 0, ahead) {
		return nil
	}
	return fmt.Errorf("out of descriptors: of the %d that this process may have, %d are not for traffic, "+
		"and no others are left for a listener; raise the limit (ulimit -n, LimitNOFILE=)", b.limit, b.reserved)
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

// keepListenersLocked sets the goal of the listeners: what they have, and some for those to come.
func (b *budget) keepListenersLocked() {
	taken, _ := b.listeners.load()
	spare := max(b.total/32, min(listenerDescriptors, b.total/8))
	b.listeners.goal = taken + min(spareListeners*listenerDescriptors, spare)
}

// udpSockets returns how many sockets each of so many UDP listeners is to have: one for each loop. Where listeners
// are many or descriptors are few it is less, but two.
func (b *budget) udpSockets(listeners, loops int) int {
	all := int(min(maxUDPSockets, b.total/8))
	return min(loops, max(all/max(listeners, 1), 2))
}

// advance lets the caller use a descriptor that another loop owes, and has not closed yet. Until
// then there is one more than the shares have taken, so the number of these is bounded. It returns false if there
// are too many. Each true is undone by endAdvance.
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
var errOutOfDescriptors = errors.New("out of descriptors, raise the limit (ulimit -n, LimitNOFILE=)")
