package proxy

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/lictor-proxy/lictor/lb"
)

// A ClientKey says whose connections or sessions are counted: those of an address, for Service.MaxPerClient, or those
// of an identity, for Service.MaxPerIdentity. One of the fields is zero.
type ClientKey struct {
	Addr     netip.Addr // see lb.ClientOf
	Identity string     // see TLSPeer.Identity
}

func addrKey(src netip.AddrPort) ClientKey { return ClientKey{Addr: lb.ClientOf(src.Addr())} }

// A clientCount counts the connections or sessions of a service for each client. Only clients with connections or
// sessions take memory. The zero value is ready to use. Safe for concurrent use.
type clientCount struct {
	mu      sync.Mutex
	of      map[ClientKey]int // connections or sessions by client; nil if there are none
	spent   int               // the largest size that the map of has had
	foreign map[ClientKey]int // connections or sessions in other processes, by client
}

// manySpent is the largest size of a map that is kept for reuse when it is empty. Maps do not shrink, so a larger map
// is dropped.
const manySpent = 64

// enter counts one more for the client. enter returns false if the client has reached limit already. A limit of zero
// means any number.
func (c *clientCount) enter(client ClientKey, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.of[client]+c.foreign[client] >= limit {
		return false
	}
	if c.of == nil {
		c.of = map[ClientKey]int{}
	}
	c.of[client]++
	c.spent = max(c.spent, len(c.of))
	return true
}

// leave undoes an enter that returned true.
func (c *clientCount) leave(client ClientKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[client]--; c.of[client] > 0 {
		return
	}
	if delete(c.of, client); len(c.of) == 0 && c.spent > manySpent {
		c.of, c.spent = nil, 0
	}
}

// counts returns a copy of the counts of all clients, or nil if there are none.
func (c *clientCount) counts() map[ClientKey]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of)
}

func (c *clientCount) setForeign(counts map[ClientKey]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign = counts
}

// errClientLimit and errIdentityLimit refuse a client that is at its limit of connections.
var (
	errClientLimit   = errors.New("the client has as many connections as max_connections_per_client allows")
	errIdentityLimit = errors.New("the client's identity has as many connections as " +
		"max_connections_per_identity allows")
)

// countClient counts a connection or session of the client at src if the service has a limit. countClient returns ok
// false if the client is at the limit. If counted is true, the caller must call uncount when the connection or session
// has ended.
func (s *service) countClient(src netip.AddrPort) (counted, ok bool) {
	limit := s.spec.Load().MaxPerClient
	if limit <= 0 || !src.IsValid() { // clients of Unix sockets have no addresses that tell them apart
		return false, true
	}
	ok = s.clients.enter(addrKey(src), limit)
	return ok, ok
}

// countAnyway counts a session that another process has begun, even above the limit.
func (s *service) countAnyway(src netip.AddrPort) (counted bool) {
	return s.spec.Load().MaxPerClient > 0 && s.clients.enter(addrKey(src), 0)
}

// uncount undoes what countClient has counted.
func (s *service) uncount(src netip.AddrPort) { s.uncountKey(addrKey(src)) }

func (s *service) uncountKey(client ClientKey) {
	s.clients.leave(client)
	s.uncounted.call()
}

// A callback is a function that can be replaced while it is called concurrently. A callback that is nil or not set does
// nothing.
type callback struct{ f atomic.Pointer[func()] }

func (c *callback) call() {
	if c == nil {
		return
	}
	if f := c.f.Load(); f != nil {
		(*f)()
	}
}

// ClientCounts returns the number of connections or sessions by service name and client. Only services with
// MaxPerClient count them by address, and only those with MaxPerIdentity by identity.
func (p *Proxier) ClientCounts() map[string]map[ClientKey]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]map[ClientKey]int{}
	for name, s := range p.services {
		if counts := s.clients.counts(); len(counts) > 0 {
			all[name] = counts
		}
	}
	return all
}

// SetForeignClients replaces the counts of a service's clients in other processes. The limits MaxPerClient and
// MaxPerIdentity include the counts of other processes. SetForeignClients keeps a reference to counts, which must not
// change afterwards. SetForeignClients does nothing if there is no such service.
func (p *Proxier) SetForeignClients(service string, counts map[ClientKey]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.services[service]; s != nil {
		s.clients.setForeign(counts)
	}
}

// NotifyUncounted sets a function that is called whenever a count in ClientCounts falls. The function is called on the
// data path: it must not block and must not call the Proxier.
func (p *Proxier) NotifyUncounted(f func()) { p.uncounted.f.Store(&f) }
