// Package cycles finds endpoints that lead back to this Lictor. An endpoint that leads back makes clients go round in a
// circle: one connection uses up all descriptors, and one datagram circles for ever. An endpoint that is the admin API
// would open the API to all clients of the service.
//
// An endpoint leads back if it is the admin API's listener. An endpoint also leads back if it is a listener of a
// service from which the endpoint's own service can be reached. Chains of services that end outside this Lictor are
// allowed. The package also finds addresses that no instance can have (multicast, broadcast).
//
//	d := cycles.New(cycles.Options{Logger: logger, Changed: rejudge})
//	d.Listen(services, admin)       // at first, and whenever listeners change
//	verdicts := d.Judge(updates)    // of sets of endpoints, before clients are sent to them
//	err := d.Check(...)             // of a looked-up address, right before it is dialled
//	d.Run(ctx)                      // follow this host's addresses, and host names
//
// Of the endpoints that form a cycle, one must be left out. The package adds endpoints in this order: those in the
// configuration, those that were used before, new ones. The package leaves out the endpoint that closes the cycle.
// Therefore a user who may register instances of one service cannot remove an endpoint of another service.
//
// The package does not see cycles through other hosts, or through addresses that the kernel rewrites.
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

// A Service is a service for which this process listens.
type Service struct {
	Name    string
	Network lb.Network
	Listen  []lb.Addr     // with their real ports; port 0 is ignored
	Static  []lb.Endpoint // endpoints in the configuration
}

// A Verdict is the reason why an endpoint gets no clients.
type Verdict struct {
	Reason string // Loop or Unfit, or the reason of another judge
	Text   string // explanation for operators

	// Critical means that the endpoint itself fails. The endpoint's open connections are treated as if its check in
	// Consul were critical.
	Critical bool
}

// The reasons, as the admin API names them.
const (
	Loop  = "loop"    // the endpoint leads back to this Lictor
	Unfit = "address" // no instance can have this address
)

// Options configure a Detector. The zero value of each field is valid.
type Options struct {
	Logger hclog.Logger // nil means no log

	// Changed is called when all sets must be judged again although they have not changed. Changed may be nil.
	Changed func()

	// Addrs returns the addresses of this host with their prefix lengths. A nil Addrs means those of the system.
	Addrs func() ([]netip.Prefix, error)

	// Lookup returns the addresses of a host name. A nil Lookup means net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Detector knows the listeners of this process, and the endpoints that may lead to them. The Detector is safe for
// concurrent use.
type Detector struct {
	log     hclog.Logger
	changed func()
	addrs   func() ([]netip.Prefix, error)
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	view    atomic.Pointer[view]
	learnt  chan struct{} // has an element when names must be looked up

	mu       sync.Mutex
	networks map[string][]lb.Network       // networks of each service
	static   map[string]map[string]bool    // addresses of each service's static endpoints
	suspects map[string][]lb.Endpoint      // endpoints that may lead back, by service
	names    map[string]*name              // by "host:port"
	history  map[Link]period               // of allowed links
	verdicts map[string]map[string]Verdict // by service and endpoint ID
	told     map[string]map[string]Verdict // the verdicts that Judge returned last
}

// New returns a Detector without listeners.
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
		d.log.Warn("cannot read this host's addresses: finding loops through wildcards only on loopback", "error", err)
	}
	d.setHost(hostOf(addrs))
	return d
}

// Run follows this host's addresses and those of host names, because their changes may make endpoints lead back. Run
// returns when ctx has ended.
func (d *Detector) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	addresses := make(chan struct{}, 1)
	addresses <- struct{}{}
	running.Go(func() { d.followHost(ctx, addresses) })
	running.Go(func() { d.followNames(ctx) })
	if err := hearOfAddresses(ctx, addresses); err != nil && ctx.Err() == nil {
		d.log.Debug("the system does not report new addresses, lictor reads them regularly instead", "error", err)
	}
}

// Listen replaces the listeners of this process: those of services, and the addresses of the admin API. A service may
// appear twice, in its old and in its new form. Listen has judged all sets again when it returns.
func (d *Detector) Listen(services []Service, admin []lb.Addr) {
	listeners := map[place][]listener{}
	listen := func(network lb.Network, addr lb.Addr, service string) {
		if addr.Path != "" {
			addr = atPath(addr.Path)
		}
		at, one := placeOf(network, addr), listener{addr.AddrPort.Addr().Unmap(), service}
		if (at.port != 0 || at.path != "") && !slices.Contains(listeners[at], one) {
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

// setHost replaces what is known of this host's addresses, and reports whether anything changed.
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

// Judge replaces the sets of the services in updates. Judge returns the verdicts, by service and endpoint ID, of each
// service with changed verdicts, including services outside updates. Endpoints without a verdict may get clients.
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

// suspectsLocked returns the endpoints of a set that may lead back. An endpoint is suspect if its address is unfit or
// may reach a listener, or if it has a host name.
func (d *Detector) suspectsLocked(u lb.Endpoints) (all []lb.Endpoint) {
	if u.Removed {
		return nil
	}
	v := d.view.Load()
	for _, e := range u.Endpoints {
		odd := e.Host != ""
		if !odd {
			addr := addressOf(e)
			odd = v.unfit(addr) != ""
			for _, network := range d.networks[u.Service] {
				odd = odd || !v.ordinary(network, addr)
			}
		}
		if odd {
			all = append(all, e)
		}
	}
	return all
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// tell logs newly left-out endpoints of a service: the first by ID, and the number of the others.
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
			d.log.Warn("endpoint left out, no instance can have its address", args...)
		}
	}
}

// Check returns nil if endpoint e of a service may be dialled at addr, an address of its host name. Otherwise it
// returns the reason. Check does not block, except when a name leads to a listener of this process for the first time.
func (d *Detector) Check(service string, network lb.Network, e lb.Endpoint, addr netip.AddrPort) error {
	addr = unmapped(addr)
	v := d.view.Load()
	at := atPort(addr)
	if v.ordinary(network, at) {
		return nil
	}
	why, certain := v.barrier(service, network, at)
	if !v.names[e.Address()] || !certain {
		d.learn(e, addr)
	}
	if !certain {
		why, certain = d.look().barrier(service, network, at)
	}
	switch {
	case why.Reason == Unfit:
		return fmt.Errorf("no instance can have the address %s, %s", addr, why.Text)
	case why.Reason == Loop:
		return fmt.Errorf("leads back to this Lictor: %s is %s", addr, why.Text)
	case !certain: // the endpoint has just left the service, or the service is being removed
		return fmt.Errorf("%s is a listener of this Lictor", addr)
	}
	return nil
}

// Usable reports whether an endpoint that is not in a service's set could get clients. Usable ignores verdicts that
// depend on other endpoints. The endpoint must not be a listener of the service or of the admin API, and an instance
// must be able to have its address.
func (d *Detector) Usable(service string, e lb.Endpoint) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	_, out := d.verdictLocked(service, e, func(network lb.Network, addr lb.Addr) Verdict {
		return v.always(service, network, addr)
	})
	return !out
}

// evaluateLocked decides which links are allowed and which endpoints may get clients. evaluateLocked uses the listeners
// and the host of v, and stores the result as the new view.
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
			why, is := d.verdictLocked(service, e, func(network lb.Network, addr lb.Addr) Verdict {
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
