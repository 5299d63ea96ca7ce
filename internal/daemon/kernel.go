package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A kernelPath is what a kernelKeeper needs of the kernel path. *kernel.Path is one.
type kernelPath interface {
	Set(s kernel.Service) error
	Remove(service string) error
	Counters(service string) (kernel.Counters, []kernel.EndpointCounters)
	Sockets(ctx context.Context) ([]kernel.Socket, error)
	Cut(service string, keys []uint64) (int, error)
	CanCut(udp bool) error
	Yield() error
	Close() error
}

// A kernelKeeper keeps the services on the kernel path as the balancer has them: the kernel path has exactly the
// endpoints that a pick could return. It reports back to the balancer how connections on the kernel path went.
type kernelKeeper struct {
	log       hclog.Logger
	balancer  *lb.RoundRobin
	resolver  *lb.Resolver
	try       func(service string) // tries the ejected endpoints that are due, see lb.Prober.TryEjected
	admit     func(service string, p proxy.Protocol, e lb.Endpoint, addr netip.AddrPort) error
	listeners func() []proxy.Listener
	earlier   *ledger // counters of earlier processes
	open      func(kernel.Options) (kernelPath, error)
	start     func(func(context.Context)) // runs a function until the daemon ends
	wake      chan struct{}               // has an element while run should look for work

	feeding sync.Mutex // taken to change what the kernel path has; before mu

	mu       sync.Mutex // guards the fields below, and those of kernelServices that say so
	lastKey  uint64     // the last key that an endpoint got
	path     kernelPath // nil: there is none
	opened   kernelPath // opened by prepare, and not in force yet; nil: none
	cgroup   string     // of path
	services map[string]*kernelService
	off      map[string]string          // for each other service: why it is not on the kernel path
	asked    map[string]string          // kernel_path of each service
	used     bool                       // a service asks for the kernel path, or has asked
	told     map[string]bool            // reasons that were logged
	looking  map[string]bool            // host names that are being looked up
	past     map[string]kernel.Counters // of services that the kernel path had before, by name
	cut      map[string]int64           // connections that were cut, by service
	closed   bool
}

// openKernelPath opens the kernel path of this host.
func openKernelPath(o kernel.Options) (kernelPath, error) {
	path, err := kernel.Open(o)
	if err != nil {
		return nil, err
	}
	return path, nil
}

// newKernelKeeper returns the keeper of d, whose other parts must be there.
func newKernelKeeper(d *Daemon) *kernelKeeper {
	k := &kernelKeeper{
		log: d.log.Named("kernel"), balancer: d.balancer, resolver: d.resolver, try: d.prober.TryEjected,
		admit: d.admit, open: openKernelPath, start: d.runUntilEnd, wake: make(chan struct{}, 1),
		listeners: func() []proxy.Listener { return d.proxier.Listeners() }, earlier: &d.ledger,
		services: map[string]*kernelService{}, off: map[string]string{}, told: map[string]bool{},
		looking: map[string]bool{}, past: map[string]kernel.Counters{}, cut: map[string]int64{},
	}
	d.balancer.NotifyChoices(k.changed)
	return k
}

// prepare opens the kernel path if services of cfg want it and it is not open. The commit step puts services on it, and
// must run when their listeners are open. The error says why a service that must be on the kernel path cannot.
func (k *kernelKeeper) prepare(cfg *config.Config) (step, error) {
	k.mu.Lock()
	path, cgroup := k.path, k.cgroup
	k.mu.Unlock()
	off := cfg.OffKernelPath()
	wants := slices.ContainsFunc(cfg.Services, func(s config.Service) bool {
		return s.KernelPath != config.KernelPathOff && off[s.Name] == ""
	})
	switch {
	case !wants:
		return step{commit: func() { k.commit(cfg, nil, nil) }}, nil
	case path != nil && cgroup == cfg.KernelPathCgroup:
		if err := cutsNeeded(cfg, path); err != nil {
			return step{}, err
		}
		return step{commit: func() { k.commit(cfg, path, nil) }}, nil
	}
	opened, err := k.open(kernel.Options{Cgroup: cfg.KernelPathCgroup, Logger: k.log, Events: k.event})
	if err != nil && cfg.NeedsKernelPath() {
		return step{}, fmt.Errorf("kernel_path: %w", err)
	}
	k.setOpened(opened)
	s := step{commit: func() { k.commit(cfg, opened, err) }, abort: func() {
		if former := k.setOpened(nil); former != nil {
			k.ended(former.Close())
		}
	}}
	if err == nil {
		err = cutsNeeded(cfg, opened)
	}
	if err != nil && cfg.NeedsKernelPath() {
		s.Abort()
		return step{}, err
	}
	return s, nil
}

// cutsNeeded returns an error if a service of cfg must be on the kernel path and has on_leave, and path cannot cut
// connections.
func cutsNeeded(cfg *config.Config, path kernelPath) error {
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if s.KernelPath != config.KernelPathOn {
			continue
		}
		if why := cannotCut(s, path); why != nil {
			return fmt.Errorf("kernel_path: service %q: %w", s.Name, why)
		}
	}
	return nil
}

// cannotCut returns why s must not be on path, because it needs that connections are cut and path cannot do it. A nil
// path can.
func cannotCut(s *config.Service, path kernelPath) error {
	if path == nil {
		return nil
	}
	switch {
	case s.Protocol == config.UDP:
		if err := path.CanCut(true); err != nil {
			return fmt.Errorf("sockets that are connected to an endpoint that has left: %w", err)
		}
	case s.OnLeave != (config.OnLeave{}):
		if err := path.CanCut(false); err != nil {
			return fmt.Errorf("the service has on_leave: %w", err)
		}
	}
	return nil
}

// setOpened stores the path that prepare has opened, and returns the one before.
func (k *kernelKeeper) setOpened(path kernelPath) (former kernelPath) {
	k.mu.Lock()
	defer k.mu.Unlock()
	former, k.opened = k.opened, path
	return former
}

// commit puts the services of cfg on path, which may be the one in force. A nil path means that there is none, because
// of err, or because no service wants it.
func (k *kernelKeeper) commit(cfg *config.Config, path kernelPath, err error) {
	k.feeding.Lock()
	defer k.feeding.Unlock()
	listen := map[string][]netip.AddrPort{}
	for _, l := range k.listeners() {
		listen[l.Service] = append(listen[l.Service], l.Addr.AddrPort)
	}
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	former, before := k.path, k.services
	next, off := kernelServices(cfg, listen, err, path)
	k.asked, k.used = map[string]string{}, k.used || cfg.WantsKernelPath()
	for i := range cfg.Services {
		k.asked[cfg.Services[i].Name] = cfg.Services[i].KernelPath.String()
	}
	var changed []*kernelService
	for name, s := range before {
		if next[name] != nil && next[name].udp != s.udp {
			changed = append(changed, s)
		} else if next[name] != nil && former == path {
			next[name].keep(s)
		}
	}
	k.opened = nil
	k.path, k.cgroup, k.services, k.off = path, cfg.KernelPathCgroup, next, off
	k.mu.Unlock()
	for _, s := range changed {
		if former == path {
			k.removeLocked(path, s.name) // its protocol has changed
			s.release()
		}
	}
	for name := range next {
		k.feedLocked(name)
	}
	for name, s := range before {
		if former != path || next[name] == nil {
			k.removeLocked(former, name)
			s.release()
		}
	}
	if former != nil && former != path {
		k.ended(former.Close())
	}
	k.tell(cfg)
	if path != nil && former != path {
		k.log.Info("clients on this host use the kernel path", "services", len(next))
	}
}

// kernelServices returns the services of cfg that are on the kernel path, and for the others why they are not. err says
// why this host has no kernel path. With neither err nor path, the kernel path can do all.
func kernelServices(
	cfg *config.Config, listen map[string][]netip.AddrPort, err error, path kernelPath,
) (on map[string]*kernelService, off map[string]string) {
	on, off = map[string]*kernelService{}, cfg.OffKernelPath()
	for i := range cfg.Services {
		s := &cfg.Services[i]
		cannotCut := cannotCut(s, path)
		switch {
		case s.KernelPath == config.KernelPathOff:
			off[s.Name] = "kernel_path is off"
		case off[s.Name] != "":
			off[s.Name] = "the service " + off[s.Name]
		case err != nil:
			off[s.Name] = err.Error()
		case cannotCut != nil:
			off[s.Name] = cannotCut.Error()
		default:
			on[s.Name] = &kernelService{name: s.Name, listen: listen[s.Name], udp: s.Protocol == config.UDP,
				idle: s.IdleTimeout, timeout: s.ConnectTimeout,
				onLeave: onLeaveOf(s.OnLeave), known: map[uint64]*lb.Member{}, keys: map[lb.MemberKey]uint64{},
				ended: map[uint64]bool{}}
		}
	}
	return on, off
}

// tell logs why services that ask for the kernel path are not on it. Each reason is logged once.
func (k *kernelKeeper) tell(cfg *config.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	by := map[string][]string{} // services, by reason
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if why := k.off[s.Name]; why != "" && s.KernelPath != config.KernelPathOff && !k.told[why] {
			by[why] = append(by[why], s.Name)
		}
	}
	for why, names := range by {
		k.told[why] = true
		k.log.Warn("not on the kernel path, lictor forwards the connections", "services", endpoints.SomeOf(names),
			"reason", why)
	}
}

// yield leaves new clients to the successor. The connections of this process are still counted, and cut.
func (k *kernelKeeper) yield() {
	k.feeding.Lock()
	defer k.feeding.Unlock()
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	if path != nil {
		k.ended(path.Yield())
	}
}

// close removes all services from the kernel path, and closes it. Clients use the listeners from then on.
func (k *kernelKeeper) close() {
	k.feeding.Lock()
	defer k.feeding.Unlock()
	k.mu.Lock()
	path, opened, services := k.path, k.opened, k.services
	k.closed, k.path, k.opened, k.services = true, nil, nil, map[string]*kernelService{}
	k.mu.Unlock()
	if opened != nil {
		k.ended(opened.Close())
	}
	if path == nil {
		return
	}
	for name, s := range services {
		k.removeLocked(path, name)
		s.release()
	}
	k.ended(path.Close())
}

// removeLocked removes a service from path, which may be nil, and keeps its counters. The caller must hold feeding.
func (k *kernelKeeper) removeLocked(path kernelPath, name string) {
	if path == nil {
		return
	}
	c, _ := path.Counters(name)
	c.Open = 0 // nothing counts these connections any more
	k.ended(path.Remove(name))
	k.mu.Lock()
	defer k.mu.Unlock()
	c.Add(k.past[name])
	k.past[name] = c
}

// ended logs that a part of the kernel path could not be removed.
func (k *kernelKeeper) ended(err error) {
	if err != nil {
		k.log.Warn("kernel path not removed cleanly", "error", err)
	}
}

// changed marks a service whose choices may have changed. It does not block.
func (k *kernelKeeper) changed(service string) {
	k.mu.Lock()
	s := k.services[service]
	if s != nil {
		s.changed = true
	}
	k.mu.Unlock()
	if s == nil {
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run feeds the kernel path until ctx ends.
func (k *kernelKeeper) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		k.feeding.Lock()
		for _, name := range k.due(time.Now()) {
			k.feedLocked(name)
		}
		k.feeding.Unlock()
		timer.Reset(k.pause(time.Now()))
	}
}

// due returns the services that should be fed now. feedLocked clears their marks.
func (k *kernelKeeper) due(now time.Time) (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, s := range k.services {
		if s.changed || !s.next.IsZero() && !now.Before(s.next) {
			names = append(names, name)
		}
	}
	return names
}

// pause returns how long run may wait for a change.
func (k *kernelKeeper) pause(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	pause := time.Hour
	for _, s := range k.services {
		switch {
		case s.changed:
			return 0
		case !s.next.IsZero():
			pause = min(pause, max(s.next.Sub(now), 0))
		}
	}
	return pause
}
