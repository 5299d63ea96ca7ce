package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// Options are what a Proxier needs.
type Options struct {
	LoadBalancer lb.LoadBalancer // required
	Logger       hclog.Logger    // nil: silent

	// MaxDescriptors is how many descriptors the process may have open. A part is kept back for what is not traffic.
	// Zero: 65,536.
	MaxDescriptors int64

	// Resolver looks up the host names of endpoints. Nil: one of its own, with MaxLookups.
	Resolver *lb.Resolver

	// Engine is how bytes are moved. Zero: the best for this system.
	Engine Engine

	// Loops is how many event loops there are. Zero: one for each processor that Go may use. A process that does
	// little else does well to give Go one processor more than there are loops, as internal/daemon does and says
	// why.
	Loops int

	// Inherited are sockets that are open already. Listeners at their addresses use them instead of opening their
	// own. Call DropInherited when no more listeners are to come for them.
	Inherited []Inherited

	// Hold has listeners open without anybody being served, until Begin: what is inherited is served by somebody
	// else so far.
	Hold bool

	// Admit is asked about each address that the host name of an endpoint has come to, before it is dialled. An error
	// says why it must not be: the next one is tried, and the endpoint is not to blame. Admit is called on the path of
	// the bytes, by many at once, and must not wait for long. Nil: all are dialled.
	Admit func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error

	// Access is told of each TCP connection and UDP session that has ended. It is called on the path of the bytes,
	// by many at once: it must not wait for anything. Nil: nobody is told. SetAccess changes it.
	Access func(AccessRecord)
}

// Engine is a way of moving bytes. What a Proxier promises holds for all of them.
type Engine int

// The engines.
const (
	// EngineAuto is event loops on Linux, and EnginePortable elsewhere.
	EngineAuto Engine = iota

	// EnginePortable is goroutines over package net.
	EnginePortable
)

// A Proxier keeps the listeners of a set of services open and serves their clients. All methods may be called
// concurrently.
type Proxier struct {
	balancer  lb.LoadBalancer
	log       hclog.Logger
	budget    *budget
	denied    *sys.Denials
	engine    engine
	resolver  *lb.Resolver // its own, if it has one
	loops     tracker
	access    accessTap
	uncounted callback                                                                   // see NotifyUncounted
	admit     func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error // nil: all
	pulse     *pulse                                                                     // of mu

	mu        sync.Mutex // one Apply at a time
	closed    bool
	held      bool // see Options.Hold
	inherited []Inherited
	services  map[string]*service
	sockets   map[socketKey]*boundSocket
	leaving   map[*boundSocket]socketKey // removed, and draining
	drained   context.CancelFunc         // cuts the leaving
	draining  context.Context
}

// A socketKey is what a listener is asked for as. The name counts only for port 0: every service gets a port of its
// own.
type socketKey struct {
	protocol Protocol
	addr     netip.AddrPort
	name     string
}

// A boundSocket is a proxySocket and what it serves now.
type boundSocket struct {
	proxySocket
	service *service
	shared  bool // see proxySocket.shareAddress
}

// New returns a Proxier without services. An error means that the system does not give what the engine needs.
func New(o Options) (*Proxier, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	var own *lb.Resolver
	if o.Resolver == nil {
		own = lb.NewResolver(MaxLookups(o.MaxDescriptors))
		o.Resolver = own
	}
	o.Logger = o.Logger.Named("proxy")
	denied := newDenials(o.Logger)
	e, b, err := newEngine(o, denied)
	if err != nil {
		return nil, err
	}
	p := &Proxier{
		balancer:  o.LoadBalancer,
		log:       o.Logger,
		budget:    b,
		denied:    denied,
		engine:    e,
		resolver:  own,
		admit:     o.Admit,
		inherited: slices.Clone(o.Inherited),
		held:      o.Hold,
		services:  map[string]*service{},
		sockets:   map[socketKey]*boundSocket{},
		leaving:   map[*boundSocket]socketKey{},
	}
	p.pulse = lockPulse("the lock of all listeners", &p.mu)
	p.draining, p.drained = context.WithCancel(context.Background())
	p.access.set(o.Access)
	p.balancer.NotifyGone(e.endpointsGone)
	return p, nil
}

// Apply makes services the ones that are served, all of them or, if one listener cannot be opened, none: then
// everything stays as it was, and the error tells of every listener that failed. Names must be distinct, and so must
// addresses within a protocol.
//
// Services that are equal to what they were are not touched. Of those that changed, listeners at the same address
// stay open and their clients connected; new clients get the new settings, and OnLeave and MaxAge hold for all.
// Listeners that are no longer wanted close, and drain: their TCP connections go on until they end, their UDP
// sessions until they are quiet. An address may change to one that overlaps with it, such as from 127.0.0.1:80 to
// 0.0.0.0:80, on Linux without a moment in which nobody listens; a client in mid-handshake may be reset, and UDP
// sessions begin anew.
func (p *Proxier) Apply(services []Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	next := make(map[string]*service, len(services))
	wanted := map[socketKey]*service{}
	services = slices.Clone(services) // what is kept must not be the caller's
	for i := range services {
		spec := &services[i]
		spec.Listen = slices.Clone(spec.Listen)
		s := p.services[spec.Name]
		if s == nil || s.spec.Load().Protocol != spec.Protocol {
			s = newService(spec, p.balancer, p.log, p.engine.loopCount())
			s.access, s.admit, s.share, s.uncounted = &p.access, p.admit, p.budget.newShare(), &p.uncounted
		}
		next[spec.Name] = s
		for _, addr := range spec.Listen {
			wanted[keyOf(spec, addr)] = s
		}
	}
	opened, err := p.openLocked(wanted)
	if err != nil {
		return err
	}

	// Nothing can fail from here.
	p.budget.divide(sharesOf(next))
	for i := range services {
		if s := next[services[i].Name]; !s.spec.Load().equal(&services[i]) && s.respec(&services[i]) {
			p.engine.respecified(s)
		}
	}
	for key, s := range opened {
		p.sockets[key] = s
		if !p.held {
			p.loops.run(func() { p.serveSocket(s) })
		}
	}
	overlapping := overlapsOf(opened)
	for key, s := range p.sockets {
		if service, ok := wanted[key]; !ok {
			delete(p.sockets, key)
			p.leaving[s] = key
			s.stop() // now, so that the address is free for the next Apply
			if key.protocol == UDP && overlapping.overlaps(key) {
				s.Close() // or the datagrams of new clients would go on coming here
			}
			p.loops.run(func() { p.drain(s) })
		} else {
			s.service = service
			s.serve(service)
		}
	}
	for _, s := range opened {
		if s.shared {
			p.unshare(s)
		}
	}
	p.services = next
	return nil
}

func sharesOf(services map[string]*service) []*share {
	out := make([]*share, 0, len(services))
	for _, s := range services {
		out = append(out, s.share)
	}
	return out
}

func (p *Proxier) unshare(s *boundSocket) {
	if err := s.shareAddress(false); err != nil {
		p.log.Warn("port stays shared", "listen", s.Addr(), "error", err)
	}
}

func keyOf(s *Service, addr netip.AddrPort) socketKey {
	key := socketKey{protocol: s.Protocol, addr: addr}
	if addr.Port() == 0 {
		key.name = s.Name
	}
	return key
}

// openLocked opens the wanted sockets that are not open yet; all, or none.
func (p *Proxier) openLocked(wanted map[socketKey]*service) (map[socketKey]*boundSocket, error) {
	opened := map[socketKey]*boundSocket{}
	overlapping := overlapsOf(wanted)
	for s, key := range p.leaving {
		_, again := wanted[key]
		if key.protocol == UDP && (again || overlapping.overlaps(key)) {
			s.Close() // it holds its address while it drains
		}
	}
	shared, err := p.shareLocked(wanted, overlapping)
	if err != nil {
		return nil, err
	}
	overlapping, inherited := overlapsOf(shared), p.inheritedByKey()
	udp := 0
	for key := range wanted {
		if key.protocol == UDP {
			udp++
		}
	}
	var errs *multierror.Error
	for key, s := range wanted {
		if _, ok := p.sockets[key]; ok {
			continue
		}
		o := listenSpec{addr: key.addr, shared: overlapping.overlaps(key), cutAll: p.draining, udp: udp}
		if files := inherited[key]; len(files) > 0 {
			o.file, o.more = files[0], files[1:]
		}
		socket, err := p.open(key, s, o)
		if err != nil {
			errs = multierror.Append(errs, p.namingInherited(key, s, err))
			continue
		}
		opened[key] = &boundSocket{socket, s, o.shared}
	}
	if errs == nil {
		return opened, nil
	}
	for _, s := range opened {
		s.Close()
	}
	for _, s := range shared {
		p.unshare(s)
	}
	slices.SortFunc(errs.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return nil, errs
}

// shareLocked has the sockets that are about to leave share their ports with the wanted ones that overlap with them:
// the new ones must be open before the old ones close, or a failure could not be undone. It returns those sockets.
func (p *Proxier) shareLocked(
	wanted map[socketKey]*service, overlapping overlapIndex,
) (map[socketKey]*boundSocket, error) {
	shared := map[socketKey]*boundSocket{}
	for key, s := range p.sockets {
		if _, stays := wanted[key]; stays || !overlapping.overlaps(key) {
			continue
		}
		if err := s.shareAddress(true); err != nil {
			return nil, fmt.Errorf("service %q: share %s: %w", s.service.name(), s.Addr(), err)
		}
		shared[key] = s
	}
	return shared, nil
}

// open opens the socket of key as o says, within the budget.
func (p *Proxier) open(key socketKey, s *service, o listenSpec) (socket proxySocket, err error) {
	if zone := key.addr.Addr().Zone(); zone != "" && sys.InterfaceOf(zone) == 0 {
		return nil, fmt.Errorf("service %q: listen on %s: this host has no interface %q", s.name(), key.addr, zone)
	}
	if err = p.budget.openListener(listenerDescriptors); err == nil {
		if key.protocol == UDP {
			socket, err = p.engine.listenUDP(o, s)
		} else {
			socket, err = p.engine.listenTCP(o, s)
		}
		if err != nil {
			p.budget.closeListener(listenerDescriptors)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", s.name(), err)
	}
	return socket, nil
}

// serveSocket runs a socket's ProxyLoop.
func (p *Proxier) serveSocket(s *boundSocket) {
	if err := s.ProxyLoop(); err != nil && !errors.Is(err, ErrClosed) {
		p.log.Error("listener ended", "listen", s.Addr(), "error", err)
	}
}

// drain lets a removed socket's clients finish.
func (p *Proxier) drain(s *boundSocket) {
	_ = s.Shutdown(p.draining) // the error says that they were cut, which is what the caller of Close asked for
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leaving, s)
}

// SetAccess makes f the one who is told of what ends from now on, as Options.Access was; the former one may be told
// of a few more yet.
func (p *Proxier) SetAccess(f func(AccessRecord)) { p.access.set(f) }

// A Listener is an open listener.
type Listener struct {
	Service  string
	Protocol Protocol
	Addr     netip.AddrPort // with the real port
}

// Listeners returns the open listeners, sorted by service and address.
func (p *Proxier) Listeners() []Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Listener, 0, len(p.sockets))
	for key, s := range p.sockets {
		out = append(out, Listener{Service: s.service.name(), Protocol: key.protocol, Addr: s.Addr()})
	}
	slices.SortFunc(out, func(a, b Listener) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return a.Addr.Compare(b.Addr)
	})
	return out
}

// Snapshot returns the counters of all services, sorted by name.
func (p *Proxier) Snapshot() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		s.countDrops()
	}
	out := make([]Stats, 0, len(p.services))
	for _, s := range p.services {
		out = append(out, s.stats())
	}
	slices.SortFunc(out, func(a, b Stats) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// EachActivity calls f for each service, in no order. It allocates nothing, for it is called once a second for what
// may be thousands; f must not call the Proxier.
func (p *Proxier) EachActivity(f func(service string, a Activity)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.services {
		f(name, s.activity())
	}
}

// Shutdown takes no new clients, waits until all that are being served have finished, and leaves nothing running.
// When ctx ends first, the rest is cut, and Shutdown returns ctx.Err(). The Proxier cannot be used again.
func (p *Proxier) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	sockets := p.sockets
	p.sockets = map[socketKey]*boundSocket{}
	for key, s := range sockets {
		p.leaving[s] = key
	}
	p.mu.Unlock()

	defer context.AfterFunc(ctx, p.drained)()
	for _, s := range sockets {
		p.loops.run(func() { p.drain(s) })
	}
	p.loops.stop()
	_ = p.loops.wait(context.Background()) // not ctx: when that ends all is cut, and to be cut is quick
	p.engine.close()
	if p.resolver != nil {
		p.resolver.Close()
	}
	p.drained()
	return ctx.Err()
}

// Close is Shutdown without waiting for clients.
func (p *Proxier) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Shutdown(ctx)
	return nil
}
