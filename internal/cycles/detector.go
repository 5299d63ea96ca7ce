// Package cycles finds endpoints that lead back to this Lictor. A client that is sent to one goes round in a circle:
// one connection takes every descriptor, and one datagram circles for ever. And whoever registers the admin API as an
// instance opens it to all clients of the service.
//
// An endpoint leads back if it is the admin API's listener, or a listener of a service from which the endpoint's own
// service can be reached. Chains that end outside are fine. Addresses at which no instance can be (multicast,
// broadcast) are found too.
//
//	d := cycles.New(cycles.Options{Logger: logger, Changed: rejudge})
//	d.Listen(services, admin)       // at first, and whenever listeners change
//	verdicts := d.Judge(updates)    // of sets of endpoints, before anybody is sent to them
//	err := d.Check(...)             // of what a host name has come to, right before it is dialled
//	d.Run(ctx)                      // follow this host's addresses, and host names
//
// Of the endpoints that make a cycle, one has to go. They are taken in this order: those that the configuration names,
// those that have been in, new ones. The one that closes the cycle goes. So whoever may register instances of one
// service cannot have an endpoint of another service left out.
//
// It cannot see ways back through other hosts, nor through addresses that the kernel rewrites.
package cycles

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// A Service is one that this process listens for.
type Service struct {
	Name    string
	Network lb.Network
	Listen  []netip.AddrPort // with their real ports; one with port 0 is ignored
	Static  []lb.Endpoint    // endpoints that the configuration names
}

// A Verdict is why an endpoint gets no clients.
type Verdict struct {
	Reason string // Loop or Unfit, or what another judge than a Detector says
	Text   string // for people

	// Critical means that the endpoint itself fails: what connections to it may still do is as for one whose check in
	// Consul is critical.
	Critical bool
}

// The reasons, in the words of the admin API.
const (
	Loop  = "loop"    // it leads back to this Lictor
	Unfit = "address" // no instance can be there
)

// Options are what a Detector needs. The zero value of each is fine.
type Options struct {
	Logger hclog.Logger // nil: silent

	// Changed is called when sets should be judged again, all of them, for another reason than that they have changed.
	// Nil: nobody is told.
	Changed func()

	// Addrs returns the addresses of this host, with the lengths of their networks' prefixes. Nil: the system is asked.
	Addrs func() ([]netip.Prefix, error)

	// Lookup returns the addresses of a host name. Nil: net.DefaultResolver is asked.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Detector knows the listeners of this process, and the endpoints that may lead to them. Safe for concurrent use.
type Detector struct {
	log     hclog.Logger
	changed func()
	addrs   func() ([]netip.Prefix, error)
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	view    atomic.Pointer[view]
	learnt  chan struct{} // has a value when there are names to be looked up

	mu       sync.Mutex
	networks map[string][]lb.Network       // of each service
	static   map[string]map[string]bool    // addresses of each service's static endpoints
	suspects map[string][]lb.Endpoint      // those that may lead back, by service
	names    map[string]*name              // by "host:port"
	history  map[Link]period               // of links that may be followed
	verdicts map[string]map[string]Verdict // by service and endpoint ID
	told     map[string]map[string]Verdict // as Judge has returned them last
}

// New returns a Detector that knows of no listeners yet.
func New(o Options) *Detector {
	d := &Detector{
		log: o.Logger, changed: o.Changed, addrs: o.Addrs, lookup: o.Lookup, learnt: make(chan struct{}, 1),
		suspects: map[string][]lb.Endpoint{}, names: map[string]*name{}, history: map[Link]period{},
		verdicts: map[string]map[string]Verdict{}, told: map[string]map[string]Verdict{},
	}
	if d.log == nil {
		d.log = hclog.NewNullLogger()
	}
	if d.changed == nil {
		d.changed = func() {}
	}
	if d.addrs == nil {
		d.addrs = interfaceAddrs
	}
	if d.lookup == nil {
		d.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	d.view.Store(&view{host: hostOf(nil)})
	addrs, err := d.addrs()
	if err != nil {
		d.log.Warn("addresses of this host not read, wildcard listeners stand for loopback only", "error", err)
	}
	d.setHost(hostOf(addrs))
	return d
}

// Run follows what may make endpoints lead back, or no longer, without anybody saying so: the addresses of this host,
// and those of host names. It returns when ctx has ended.
func (d *Detector) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	addresses := make(chan struct{}, 1)
	addresses <- struct{}{}
	running.Go(func() { d.followHost(ctx, addresses) })
	running.Go(func() { d.followNames(ctx) })
	if err := hearOfAddresses(ctx, addresses); err != nil && ctx.Err() == nil {
		d.log.Debug("the system does not tell of new addresses, they are read now and then", "error", err)
	}
}

// Listen makes services and admin, the addresses of the admin API, what this process listens for. A service may be
// there twice, as it was and as it will be. Sets are judged anew before it returns.
func (d *Detector) Listen(services []Service, admin []netip.AddrPort) {
	listeners := map[place][]listener{}
	listen := func(network lb.Network, addr netip.AddrPort, service string) {
		at := place{network, addr.Port(), bare(addr.Addr())}
		if one := (listener{addr.Addr().Unmap(), service}); at.port != 0 && !slices.Contains(listeners[at], one) {
			listeners[at] = append(listeners[at], one)
		}
	}
	networks, static := map[string][]lb.Network{}, map[string]map[string]bool{}
	for _, s := range services {
		if !slices.Contains(networks[s.Name], s.Network) {
			networks[s.Name] = append(networks[s.Name], s.Network)
		}
		for _, addr := range s.Listen {
			listen(s.Network, addr, s.Name)
		}
		for _, e := range s.Static {
			if static[s.Name] == nil {
				static[s.Name] = map[string]bool{}
			}
			static[s.Name][e.Address()] = true
		}
	}
	for _, addr := range admin {
		listen(lb.TCP, addr, "")
	}
	d.mu.Lock()
	d.networks, d.static = networks, static
	d.evaluateLocked(&view{host: d.view.Load().host, listeners: listeners})
	d.mu.Unlock()
	d.changed()
}

// setHost makes h what is known of this host's addresses, and reports whether that is something new.
func (d *Detector) setHost(h *host) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	if maps.Equal(v.host.local, h.local) && maps.Equal(v.host.broadcast, h.broadcast) {
		return false
	}
	d.evaluateLocked(&view{host: h, listeners: v.listeners})
	return true
}

// Judge takes sets, in place of those that it had of the same services. It returns the verdicts, by service and
// endpoint ID, of each service whose verdicts are others than they were; these may be of further services. Endpoints
// without a verdict may get clients.
func (d *Detector) Judge(updates []lb.Endpoints) map[string]map[string]Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	concerned := false
	for _, u := range updates {
		concerned = concerned || len(d.suspects[u.Service]) > 0
		delete(d.suspects, u.Service)
		if s := d.suspectsLocked(u); len(s) > 0 {
			d.suspects[u.Service] = s
			concerned = true
		}
	}
	if !concerned {
		return nil
	}
	d.evaluateLocked(d.view.Load())
	changes := map[string]map[string]Verdict{}
	for service, now := range d.verdicts {
		if !maps.Equal(now, d.told[service]) {
			changes[service] = now
		}
	}
	for service := range d.told {
		if d.verdicts[service] == nil {
			changes[service] = nil
		}
	}
	for service, now := range changes {
		d.tell(service, d.told[service], now)
	}
	d.told = d.verdicts
	return changes
}

// suspectsLocked returns the endpoints of a set that may lead back: those at addresses that do, or are unfit, and all
// with a host name.
func (d *Detector) suspectsLocked(u lb.Endpoints) (all []lb.Endpoint) {
	if u.Removed {
		return nil
	}
	v := d.view.Load()
	for _, e := range u.Endpoints {
		odd := e.Host != "" || v.host.unfit(e.Addr.Addr().Unmap()) != ""
		for _, network := range d.networks[u.Service] {
			odd = odd || !v.ordinary(network, unmapped(e.Addr))
		}
		if odd {
			all = append(all, e)
		}
	}
	return all
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// tell logs which endpoints of a service are left out that were not: one of them, and how many others.
func (d *Detector) tell(service string, before, now map[string]Verdict) {
	var out []string
	for id, v := range now {
		if before[id].Reason != v.Reason {
			out = append(out, id)
		}
	}
	if slices.Sort(out); len(out) > 0 {
		args := []any{"service", service, "endpoint", out[0], "reason", now[out[0]].Text}
		if len(out) > 1 {
			args = append(args, "others_likewise", len(out)-1)
		}
		if now[out[0]].Reason == Loop {
			d.log.Warn("endpoint left out, it leads back to this Lictor", args...)
		} else {
			d.log.Warn("endpoint left out, no instance can be at its address", args...)
		}
	}
}

// Check returns why the endpoint e of a service must not be dialled at addr, which its host name has come to; nil if it
// may be. It waits for nobody, unless a name comes to a listener of this process for the first time.
func (d *Detector) Check(service string, network lb.Network, e lb.Endpoint, addr netip.AddrPort) error {
	addr = unmapped(addr)
	v := d.view.Load()
	if v.ordinary(network, addr) {
		return nil
	}
	why, certain := v.barrier(service, network, addr)
	if !v.names[e.Address()] || !certain {
		d.learn(e, addr)
	}
	if !certain {
		why, certain = d.look().barrier(service, network, addr)
	}
	switch {
	case why.Reason == Unfit:
		return fmt.Errorf("no instance can be at %s, %s", addr, why.Text)
	case why.Reason == Loop:
		return fmt.Errorf("leads back to this Lictor: %s is %s", addr, why.Text)
	case !certain: // the endpoint has just left the service, or its service is going
		return fmt.Errorf("%s is a listener of this Lictor", addr)
	}
	return nil
}

// Usable reports whether clients of a service could be sent to an endpoint that is not in its set now, as far as that
// does not depend on other endpoints: it is no listener of the service itself, nor the admin API's, nor at an address
// at which no instance can be.
func (d *Detector) Usable(service string, e lb.Endpoint) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	_, out := d.verdictLocked(service, e, func(network lb.Network, addr netip.AddrPort) Verdict {
		return v.always(service, network, addr)
	})
	return !out
}

// evaluateLocked finds out which links may be followed and which endpoints may get clients, as v says of listeners and
// this host, and makes a copy of v the view.
func (d *Detector) evaluateLocked(v *view) {
	next := &view{host: v.host, listeners: v.listeners}
	next.in, next.out, next.names = map[Link]bool{}, map[Link]string{}, map[string]bool{}
	d.rememberLocked(d.view.Load())
	links := d.linksLocked(next)
	closed := closing(links)
	for _, l := range links {
		if path, is := closed[l]; is {
			around := strings.Join(path, " -> ")
			next.out[l] = fmt.Sprintf("where service %q listens, which leads back: %s", l.To, around)
		} else {
			next.in[l] = true
		}
	}
	d.rememberLocked(next)
	for name := range d.names {
		next.names[name] = true
	}
	d.verdicts = map[string]map[string]Verdict{}
	for service, suspects := range d.suspects {
		for _, e := range suspects {
			why, is := d.verdictLocked(service, e, func(network lb.Network, addr netip.AddrPort) Verdict {
				why, _ := next.barrier(service, network, addr)
				return why
			})
			if !is {
				continue
			}
			if d.verdicts[service] == nil {
				d.verdicts[service] = map[string]Verdict{}
			}
			d.verdicts[service][e.ID] = why
		}
	}
	d.view.Store(next)
}
