package daemon

import (
	"context"
	"net/netip"
	"reflect"
	"time"

	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

const (
	// namesEvery is how often the addresses of host names are read. The Resolver looks them up as often.
	namesEvery = time.Second

	// kernelLookup limits how long the lookup of an unknown host name may take.
	kernelLookup = 10 * time.Second

	// kernelAgain is the time after which a service is fed again that the kernel path has refused.
	kernelAgain = 5 * time.Second
)

// A kernelService is a service on the kernel path. The holder of kernelKeeper.feeding writes its fields, also under mu
// if the comment says so.
type kernelService struct {
	name    string
	listen  []netip.AddrPort
	udp     bool
	idle    time.Duration // of UDP sessions
	timeout time.Duration
	onLeave proxy.OnLeave

	last kernel.Service // what the kernel path has; without a name: nothing
	next time.Time      // when to feed it again; zero: when it changes; guarded by mu

	changed bool                    // the choices may have changed; guarded by mu
	members map[uint64]kernelMember // by key; guarded by mu
	problem string                  // why the kernel path has refused the service; guarded by mu

	// known holds the endpoints of which the kernel path has counters, by key: the members, and others that have left.
	// keys is its inverse. Both are guarded by mu.
	known map[uint64]*lb.Member
	keys  map[lb.MemberKey]uint64

	ended map[uint64]bool // UDP: the endpoints that are no members, and whose sockets were ended; guarded by mu
}

// A kernelMember is an endpoint on the kernel path.
type kernelMember struct {
	*lb.Member
	addr netip.AddrPort // its address, or one of those of its host name
}

// keep takes over what was known of s, which served the same name.
func (s *kernelService) keep(was *kernelService) {
	s.last, s.keys, s.members, s.known, s.ended = was.last, was.keys, was.members, was.known, was.ended
}

// feedLocked makes the kernel path have the endpoints of a service that a pick could return now.
func (k *kernelKeeper) feedLocked(name string) {
	k.mu.Lock()
	s, path := k.services[name], k.path
	if s == nil || path == nil {
		k.mu.Unlock()
		return
	}
	s.changed = false
	k.mu.Unlock()
	choices := k.balancer.Choices(name)
	if choices.Due {
		k.try(name)
	}
	next, members, named := k.kernelServiceOf(s, choices.Choices)
	pause := choices.Next
	if (named || choices.Due) && (pause == 0 || pause > namesEvery) {
		pause = namesEvery
	}
	problem := ""
	if !reflect.DeepEqual(next, s.last) {
		if err := path.Set(next); err != nil {
			k.removeLocked(path, name) // so that the listener serves its clients
			next, members, problem, pause = kernel.Service{}, nil, err.Error(), kernelAgain
		}
	}
	k.mu.Lock()
	if problem != "" && s.problem == "" {
		k.log.Error("not on the kernel path, lictor forwards the connections", "service", name, "reason", problem)
	}
	s.last, s.members, s.problem, s.next = next, members, problem, time.Time{}
	k.mu.Unlock()
	if left := k.settleLeft(s, path); left > 0 && (pause == 0 || left < pause) {
		pause = left
	}
	if pause > 0 {
		k.mu.Lock()
		s.next = time.Now().Add(pause)
		k.mu.Unlock()
	}
}

// kernelServiceOf returns a service with these choices for the kernel path. named says that some have host names.
func (k *kernelKeeper) kernelServiceOf(
	s *kernelService, choices []lb.Choice,
) (next kernel.Service, members map[uint64]kernelMember, named bool) {
	next = kernel.Service{Name: s.name, Listen: s.listen, UDP: s.udp, ConnectTimeout: s.timeout,
		Endpoints: make([]kernel.Endpoint, 0, len(choices))}
	if s.udp {
		next.IdleTimeout = s.idle
	}
	members = make(map[uint64]kernelMember, len(choices))
	for _, c := range choices {
		addr, known := c.Member.Addr, true
		if c.Member.Host != "" {
			named = true
			addr, known = k.addressOf(s, c.Member.Endpoint)
		}
		if !known || c.Member.Path != "" || addr.Addr().Zone() != "" {
			continue
		}
		key := k.keyOf(s, c.Member)
		next.Endpoints = append(next.Endpoints, kernel.Endpoint{Addr: addr, Weight: c.Weight, Key: key})
		members[key] = kernelMember{c.Member, addr}
	}
	return next, members, named
}

// keyOf returns the key of an endpoint. An endpoint that comes back to the same address has the same one.
func (k *kernelKeeper) keyOf(s *kernelService, m *lb.Member) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := s.keys[m.Key()]
	if !ok {
		k.lastKey++
		key = k.lastKey
		s.keys[m.Key()] = key
	}
	s.known[key] = m
	m.Keep(true)
	return key
}

// addressOf returns the address at which Lictor would dial an endpoint with a host name first. If the name is not
// known, addressOf looks it up in the background, and returns false.
func (k *kernelKeeper) addressOf(s *kernelService, e lb.Endpoint) (netip.AddrPort, bool) {
	network, protocol := lb.TCP, proxy.TCP
	if s.udp {
		network, protocol = lb.UDP, proxy.UDP
	}
	addrs, ok := k.resolver.Known(e.Host)
	if !ok {
		k.lookUp(s.name, e.Host)
		return netip.AddrPort{}, false
	}
	for _, addr := range k.resolver.Order(network, e, addrs) {
		at := netip.AddrPortFrom(addr, e.Addr.Port())
		if k.admit(s.name, protocol, e, at) == nil {
			return at, true
		}
	}
	return netip.AddrPort{}, false
}

// lookUp looks up a host name in the background, and feeds the service again if there is an answer.
func (k *kernelKeeper) lookUp(service, host string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.looking[host] || k.closed {
		return
	}
	k.looking[host] = true
	k.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, kernelLookup)
		defer cancel()
		_, err := k.resolver.Lookup(ctx, host)
		k.mu.Lock()
		delete(k.looking, host)
		k.mu.Unlock()
		if err == nil {
			k.changed(service)
		}
	})
}

// event reports to the balancer how connections to an endpoint went.
func (k *kernelKeeper) event(e kernel.Event) {
	k.mu.Lock()
	var m kernelMember
	if s := k.services[e.Service]; s != nil {
		m = s.members[e.Key]
	}
	k.mu.Unlock()
	if m.Member == nil { // it has left, or is ejected
		return
	}
	if e.Kind == kernel.Recovered {
		if m.Host != "" {
			k.resolver.Reached(lb.TCP, m.addr)
		}
		m.Connected()
		return
	}
	if m.Host != "" && k.resolver.Failed(lb.TCP, m.Endpoint, m.addr.Addr()) {
		k.changed(e.Service) // the next clients get another address of the name
		return
	}
	cause := lb.Unreachable
	if e.Kind == kernel.Refused {
		cause = lb.Refused
	}
	m.Failed(cause)
}
