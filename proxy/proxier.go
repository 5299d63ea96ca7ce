package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/internal/unixsocket"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// Options configure a Proxier.
type Options struct {
	LoadBalancer lb.LoadBalancer // required; picks the endpoints
	Logger       hclog.Logger    // nil disables the log

	// MaxDescriptors is how many descriptors the process may have open. A part of them is reserved for other uses than
	// traffic. A MaxDescriptors of zero means 65,536.
	MaxDescriptors int64

	// Resolver looks up the host names of endpoints. If Resolver is nil, the Proxier makes its own resolver, with
	// MaxLookups.
	Resolver *lb.Resolver

	// Engine is how bytes are moved. The zero Engine is the best engine for this system.
	Engine Engine

	// Loops is how many event loops there are. A Loops of zero means one loop for each processor that Go may use
	// (GOMAXPROCS). Half as many TLS handshakes compute at once, on each engine. A process that mainly forwards should
	// set GOMAXPROCS higher than Loops; see internal/daemon for the reason.
	Loops int

	// Inherited are sockets that are open already. A listener at the address of an inherited socket uses that socket
	// and opens none. Call DropInherited when all listeners have been applied.
	Inherited []Inherited

	// Hold opens listeners but serves no clients until Begin is called. Before Begin, another process serves the
	// clients of the inherited sockets.
	Hold bool

	// Admit is called before an address of an endpoint's host name is dialled. An error means that this address must
	// not be dialled: the next address is tried, and the endpoint is not marked as failed. Admit is called concurrently
	// on the data path and must not block for long. A nil Admit admits all addresses.
	Admit func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error

	// Access is called for each TCP connection and UDP session that has ended. Access is called concurrently on the
	// data path and must not block. A nil Access is not called. SetAccess replaces the function.
	Access func(AccessRecord)
}

// Engine is a way of moving bytes. All engines keep all promises of Proxier.
type Engine int

// The engines of a Proxier.
const (
	// EngineAuto selects event loops on Linux, and EnginePortable elsewhere.
	EngineAuto Engine = iota

	// EnginePortable uses goroutines and package net.
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
	resolver  *lb.Resolver // resolver that this Proxier has made; nil if Options.Resolver was set
	loops     tracker
	access    accessTap
	uncounted callback                                                                   // see NotifyUncounted
	admit     func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error // nil admits all
	pulse     *pulse                                                                     // shows whether mu is stuck
	byName    servicesByName

	mu        sync.Mutex // held during Apply; guards what follows
	closed    bool
	held      bool // see Options.Hold
	inherited []Inherited
	services  map[string]*service
	sockets   map[socketKey]*boundSocket
	leaving   map[*boundSocket]socketKey // removed sockets that drain
	drained   context.CancelFunc         // cuts the clients of the sockets in leaving
	draining  context.Context
}

// A socketKey identifies a listener by the address that the configuration asks for. The name matters only for port 0,
// because each service gets a port of its own.
type socketKey struct {
	protocol Protocol
	addr     lb.Addr
	name     string
}

// A boundSocket is a proxySocket and what it serves now.
type boundSocket struct {
	proxySocket
	tenants
	shared bool // see proxySocket.shareAddress

	file   *unixsocket.File  // the file of a Unix socket that this process removes; nil if there is none
	access unixsocket.Access // who may connect to the Unix socket

	foreign bool // see Inherited
}

// loops returns Loops, or its default if it is zero.
func (o *Options) loops() int {
	if o.Loops <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return o.Loops
}

// New returns a Proxier without services. New returns an error if the system lacks something that the engine needs.
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

// Apply replaces the services that are served. If a listener cannot be opened, nothing changes, and the error names
// every listener that failed. The names of services must be distinct. Within a protocol, addresses must be distinct
// too, unless services share a listener: see Service.SNI.
//
// Services that have not changed are not touched. If a service has changed, listeners whose address stays remain open,
// and their clients stay connected. The new settings apply to new clients; OnLeave and MaxAge apply to all clients.
// Listeners that are no longer wanted close and drain: TCP connections go on until they end, UDP sessions until they
// are quiet.
//
// An address may change to an overlapping one, such as from 127.0.0.1:80 to 0.0.0.0:80. On Linux a socket listens at
// every moment of such a change. A client in the middle of a TCP handshake may be reset, and UDP sessions begin anew.
func (p *Proxier) Apply(services []Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	next := make(map[string]*service, len(services))
	services = slices.Clone(services) // the caller may change its slice later
	for i := range services {
		spec := &services[i]
		spec.Listen, spec.Sockets = slices.Clone(spec.Listen), slices.Clone(spec.Sockets)
		s := p.services[spec.Name]
		if s == nil || s.spec.Load().Protocol != spec.Protocol {
			s = newService(spec, p.balancer, p.log, p.engine.loopCount())
			s.access, s.admit, s.share, s.uncounted = &p.access, p.admit, p.budget.newShare(), &p.uncounted
		}
		next[spec.Name] = s
	}
	if err := mayBeTransparent(services); err != nil {
		return err
	}
	wanted, err := wantedOf(services, next)
	if err != nil {
		return err
	}
	opened, err := p.openLocked(wanted)
	if err != nil {
		return err
	}

	// No step from here on can fail.
	p.byName.replace(next)
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
		if w, ok := wanted[key]; !ok {
			delete(p.sockets, key)
			p.leaving[s] = key
			s.removeFile()
			s.stop() // at once: the next Apply may need the address
			if key.protocol == UDP && overlapping.overlaps(key) {
				s.Close() // an open socket would still receive datagrams of new clients
			}
			p.loops.run(func() { p.drain(s) })
		} else {
			s.tenants = w.tenants
			s.serve(&tenants{w.service, w.routes})
			p.restrict(s, w.file.Access)
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
		p.log.Warn("cannot stop sharing the port with other listeners", "listen", s.Addr(), "error", err)
	}
}

// openLocked opens the wanted sockets that are not open yet. If one fails, openLocked opens none.
func (p *Proxier) openLocked(wanted map[socketKey]*wantedSocket) (map[socketKey]*boundSocket, error) {
	opened := map[socketKey]*boundSocket{}
	overlapping := overlapsOf(wanted)
	for s, key := range p.leaving {
		_, again := wanted[key]
		if key.protocol == UDP && (again || overlapping.overlaps(key)) {
			s.Close() // a draining UDP socket still occupies its address
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
	for key, w := range wanted {
		if _, ok := p.sockets[key]; ok {
			continue
		}
		o := listenSpec{addr: key.addr, shared: overlapping.overlaps(key), cutAll: p.draining, udp: udp,
			routes: w.routes}
		if files := inherited[key]; len(files) > 0 {
			o.file, o.more = files[0], files[1:]
		}
		socket, err := p.open(key, w, o)
		if err != nil {
			errs = multierror.Append(errs, p.namingInherited(key, w.service, err))
			continue
		}
		socket.foreign = p.isForeign(key)
		opened[key] = socket
	}
	if errs == nil {
		return opened, nil
	}
	for _, s := range opened {
		s.removeFile()
		s.Close()
	}
	for _, s := range shared {
		p.unshare(s)
	}
	slices.SortFunc(errs.Errors, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return nil, errs
}

// shareLocked lets the sockets that will be removed share their ports with overlapping new sockets. The new sockets
// must open before the old ones close, because Apply could not undo a failure otherwise. shareLocked returns the
// sockets that will be removed.
func (p *Proxier) shareLocked(
	wanted map[socketKey]*wantedSocket, overlapping overlapIndex,
) (map[socketKey]*boundSocket, error) {
	shared := map[socketKey]*boundSocket{}
	for key, s := range p.sockets {
		if _, stays := wanted[key]; stays || !overlapping.overlaps(key) {
			continue
		}
		if err := s.shareAddress(true); err != nil {
			return nil, fmt.Errorf("service %q: the old listener at %s cannot share its port with a new listener: %w",
				s.service.name(), s.Addr(), err)
		}
		shared[key] = s
	}
	return shared, nil
}

// open opens the socket of key as o says. open takes the descriptors from the budget.
func (p *Proxier) open(key socketKey, w *wantedSocket, o listenSpec) (*boundSocket, error) {
	s, bound := w.service, &boundSocket{tenants: w.tenants, shared: o.shared, access: w.file.Access}
	if zone := key.addr.AddrPort.Addr().Zone(); zone != "" && sys.InterfaceOf(zone) == 0 {
		return nil, fmt.Errorf("service %q: listen on %s: this host has no interface %q", s.name(), key.addr, zone)
	}
	err := p.budget.openListener(listenerDescriptors)
	if err == nil {
		switch {
		case key.protocol == UDP:
			bound.proxySocket, err = p.engine.listenUDP(o, s)
		case key.addr.Path != "":
			bound.file, bound.proxySocket, err = p.openUnix(o, s, w.file)
		default:
			bound.proxySocket, err = p.engine.listenTCP(o, s)
		}
		if err != nil {
			p.budget.closeListener(listenerDescriptors)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", s.name(), err)
	}
	return bound, nil
}

// serveSocket runs a socket's ProxyLoop.
func (p *Proxier) serveSocket(s *boundSocket) {
	if err := s.ProxyLoop(); err != nil && !errors.Is(err, ErrClosed) {
		p.log.Error("listener stopped unexpectedly", "listen", s.Addr(), "error", err)
	}
}

// drain waits until the clients of a removed socket have finished.
func (p *Proxier) drain(s *boundSocket) {
	_ = s.Shutdown(p.draining) // an error means that Close has cut the clients
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leaving, s)
}

// SetAccess replaces the function that Options.Access has set. The previous function may still be called a few more
// times.
func (p *Proxier) SetAccess(f func(AccessRecord)) { p.access.set(f) }

// A Listener is an open listener of a service. Services that share a listener have one each, with the same Addr.
type Listener struct {
	Service  string
	Protocol Protocol
	Addr     lb.Addr // address with the port that the kernel has chosen, if any
}

// Listeners returns the open listeners, sorted by service and address.
func (p *Proxier) Listeners() []Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Listener, 0, len(p.sockets))
	for key, s := range p.sockets {
		for _, service := range s.all() {
			out = append(out, Listener{Service: service.name(), Protocol: key.protocol, Addr: s.Addr()})
		}
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

// EachActivity calls f for each service, in no particular order. EachActivity does not allocate, because it is called
// every second for possibly thousands of services. f must not call the Proxier.
func (p *Proxier) EachActivity(f func(service string, a Activity)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.services {
		f(name, s.activity())
	}
}

// Shutdown stops taking new clients and waits until all present clients have finished. If ctx ends first, Shutdown cuts
// the remaining clients and returns ctx.Err(). The Proxier cannot be used again.
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
		s.removeFile()
		p.loops.run(func() { p.drain(s) })
	}
	p.loops.stop()
	_ = p.loops.wait(context.Background()) // not ctx: when ctx ends, all clients are cut, and that is quick
	p.engine.close()
	if p.resolver != nil {
		p.resolver.Close()
	}
	p.drained()
	return ctx.Err()
}

// Close cuts all clients at once and leaves nothing running. Close returns nil.
func (p *Proxier) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Shutdown(ctx)
	return nil
}
