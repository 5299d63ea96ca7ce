package proxy

import (
	"fmt"

	"golang.org/x/sync/semaphore"
)

// A budget shares out the descriptors of the process. Those who can wait (TCP: clients then wait in the kernel's queue) acquire from
// it before they open anything; those who cannot (UDP) make room among their own.
//
// x/sync's semaphore is weighted and first come, first served, so no listener starves.
type budget struct {
	*semaphore.Weighted
	total int64
}

// What an open descriptor budget is spent on.
const (
	pairDescriptors     = 2 // a TCP connection's sockets
	sessionDescriptors  = 1 // a UDP session's socket
	listenerDescriptors = 2 // a listener's socket, and the client that it accepted and holds while the budget is used up
)

// reserved is what is kept back of limit for all else: Consul, logs, the runtime, pipes of bulk transfers, lookups of
// host names.
func reserved(limit int64) int64 { return min(64+2*maxPipes+lookupDescriptors*maxLookups, limit/4) }

const (
	lookupDescriptors = 2  // sockets of a lookup: one for IPv4 addresses, one for IPv6
	maxLookups        = 32 // under way at once
)

// MaxLookups is how many lookups of host names may be under way in a process that may have so many descriptors open:
// the sockets of all are at most a quarter of what is kept back for what is not traffic. See Options.Resolver.
func MaxLookups(descriptors int64) int {
	if descriptors <= 0 {
		descriptors = defaultLimit
	}
	return int(max(min(maxLookups, reserved(descriptors)/4/lookupDescriptors), 1))
}

// defaultLimit is used where the system tells no limit.
const defaultLimit = 65536

func newBudget(limit int64) *budget {
	if limit <= 0 {
		limit = defaultLimit
	}
	total := limit - reserved(limit)
	return &budget{Weighted: semaphore.NewWeighted(total), total: total}
}

// openListener takes what a listener needs, or says what to change.
func (b *budget) openListener() error {
	if !b.TryAcquire(listenerDescriptors) {
		return fmt.Errorf("out of descriptors: of the %d that this process may use for traffic none are left for a listener; raise the limit (ulimit -n, LimitNOFILE=)", b.total)
	}
	return nil
}

func (b *budget) closeListener() { b.Release(listenerDescriptors) }
