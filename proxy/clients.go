package proxy

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/lictor-proxy/lictor/lb"
)

// A clientCount knows how many connections or sessions of a service each client has: see lb.ClientOf for what a client
// is. It remembers only those that have some. The zero value is ready to use. Safe for concurrent use.
type clientCount struct {
	mu      sync.Mutex
	of      map[netip.Addr]int // nil: none
	spent   int                // the most clients that of has had
	foreign map[netip.Addr]int // those of other processes
}

// manySpent is how many clients a map may have had and be kept when it is empty: maps do not shrink.
const manySpent = 64

// enter counts one more for the client at src, unless it has as many as limit already. Zero limit: any number.
func (c *clientCount) enter(src netip.Addr, limit int) bool {
	client := lb.ClientOf(src)
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.of[client]+c.foreign[client] >= limit {
		return false
	}
	if c.of == nil {
		c.of = map[netip.Addr]int{}
	}
	c.of[client]++
	c.spent = max(c.spent, len(c.of))
	return true
}

// leave undoes an enter that returned true.
func (c *clientCount) leave(src netip.Addr) {
	client := lb.ClientOf(src)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[client]--; c.of[client] > 0 {
		return
	}
	if delete(c.of, client); len(c.of) == 0 && c.spent > manySpent {
		c.of, c.spent = nil, 0
	}
}

// counts returns a copy of what each client has; nil if none has any.
func (c *clientCount) counts() map[netip.Addr]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of)
}

func (c *clientCount) setForeign(counts map[netip.Addr]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign = counts
}

// errClientLimit is why a client is refused that has too many connections already.
var errClientLimit = errors.New("the client has as many connections as max_connections_per_client allows")

// countClient counts a connection or session of the client at src, if the service limits those. It returns false if the
// client has as many as it may. If counted is true, the caller calls uncount when the connection or session has ended.
func (s *service) countClient(src netip.AddrPort) (counted, ok bool) {
	limit := s.spec.Load().MaxPerClient
	if limit <= 0 {
		return false, true
	}
	ok = s.clients.enter(src.Addr(), limit)
	return ok, ok
}

// countAnyway is countClient for a session that another process has begun.
func (s *service) countAnyway(src netip.AddrPort) (counted bool) {
	return s.spec.Load().MaxPerClient > 0 && s.clients.enter(src.Addr(), 0)
}

// uncount undoes what countClient has counted.
func (s *service) uncount(src netip.AddrPort) {
	s.clients.leave(src.Addr())
	s.uncounted.call()
}

// A callback can be set while others call it. The zero value and nil do nothing when called.
type callback struct{ f atomic.Pointer[func()] }

func (c *callback) call() {
	if c == nil {
		return
	}
	if f := c.f.Load(); f != nil {
		(*f)()
	}
}

// ClientCounts returns how many connections or sessions each client has of each service, by the name of the service.
// Only services with MaxPerClient count these. Clients are those of lb.ClientOf.
func (p *Proxier) ClientCounts() map[string]map[netip.Addr]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]map[netip.Addr]int{}
	for name, s := range p.services {
		if counts := s.clients.counts(); len(counts) > 0 {
			all[name] = counts
		}
	}
	return all
}

// SetForeignClients replaces what the clients of a service have in other processes, which counts for MaxPerClient too.
// It keeps a reference to counts, which must not change. It does nothing if there is no such service.
func (p *Proxier) SetForeignClients(service string, counts map[netip.Addr]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.services[service]; s != nil {
		s.clients.setForeign(counts)
	}
}

// NotifyUncounted sets the callback for the end of what ClientCounts counts. The callback must not block and must not
// call the Proxier: it is called on the path of the clients.
func (p *Proxier) NotifyUncounted(f func()) { p.uncounted.f.Store(&f) }
