package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A daemon is a lictor at work: sources feed the balancer, and the proxier asks it.
type daemon struct {
	cfg      atomic.Pointer[config.Config] // in force
	load     func() (*config.Config, config.Diagnostics)
	decided  []string // arguments that load takes from the command line
	log      hclog.Logger
	output   *output
	proxier  *proxy.Proxier
	balancer *lb.Balancer
	resolver *lb.Resolver
	prober   *lb.Prober
	intake   *intake
	service  *notifier // what started this process, and wants to know how it does
	events   *admin.Events
	sets     *admin.Sets      // between the sources and the balancer
	cycles   *cycles.Detector // of endpoints that lead back here
	admin    *adminServer
	shown    atomic.Pointer[shownServices] // what admin was told last; nil: nothing yet
	access   *accesslog.Log

	program   string // that a successor is of; empty: this process cannot be replaced
	upgrading turn   // of upgrades; to be had before reloading
	reloading turn   // of reloads, and of what they change
	serving   tenure
	replaced  chan struct{} // closed when another process serves
	asked     chan struct{} // received from by what takes signals
	obeying   atomic.Bool   // that has begun

	consul     atomic.Pointer[discovery.Consul] // nil: no service is in Consul
	lastReload atomic.Pointer[outcome]

	// Changed only by who has the turn of reloading.
	mu         sync.Mutex    // guards the following
	ended      bool          // nothing is to be started any more
	staticFeed *feed         // nil: no service is static
	consulFeed *feed         // nil: no service is in Consul
	registered *registration // nil: not in Consul, by configuration

	ending  context.Context // ends when a signal to end has come
	toEnd   context.CancelFunc
	ctx     context.Context // ends with the daemon, when the last connection has ended
	cancel  context.CancelFunc
	running sync.WaitGroup
	wanted  chan struct{} // reloads that signals and changed files ask for
	renewed chan struct{} // upgrades that signals ask for
}

// newDaemon returns a daemon that does nothing yet.
func (c *runCommand) newDaemon(cfg *config.Config) *daemon {
	d := &daemon{
		load: c.load, decided: c.decided(), log: newLogger(cfg, c.err), output: c.output, program: c.program,
		events: admin.NewEvents(), service: newNotifier(os.Getenv),
		wanted: make(chan struct{}, 1), renewed: make(chan struct{}, 1), asked: make(chan struct{}),
		upgrading: newTurn(), reloading: newTurn(), replaced: make(chan struct{}),
	}
	d.output.json.Store(cfg.LogJSON)
	d.cfg.Store(cfg)
	_, forTraffic := shareDescriptors(descriptorLimit())
	d.resolver = lb.NewResolver(proxy.MaxLookups(forTraffic))
	d.cycles = cycles.New(cycles.Options{
		Logger: d.log.Named("endpoints"), Changed: d.reconsider, Lookup: d.resolver.Lookup,
	})
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.ending, d.toEnd = context.WithCancel(d.ctx)
	// What libraries have to say (net/http, of answers that it did not expect) is for those who look closely.
	log.SetFlags(0)
	log.SetOutput(d.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	return d
}

// start opens the listeners, says what they serve, and starts the sources. With a predecessor it takes over from that. Either all of that,
// or an error and nothing. It does not wait for Consul after ctx has ended.
func (c *runCommand) start(ctx context.Context, cfg *config.Config, diags config.Diagnostics) (*daemon, error) {
	d := c.newDaemon(cfg)
	consul, err := d.newConsul(cfg, c.predecessor.State().Saved)
	if err != nil {
		return nil, err
	}
	if err := c.checkOwnFilters(ctx, cfg, diags, consul, d.log); err != nil {
		return nil, err
	}
	if consul != nil && c.predecessor != nil {
		consul.HoldState(true)
	}
	d.balancer = lb.NewBalancer()
	d.balancer.NotifyHealth(d.events.Health)
	d.sets = admin.NewSets(d.balancer, d.events, d.cycles)
	d.cycles.Prefer(c.predecessor.State().Links)
	d.detect(cfg)
	tuneCollector(len(cfg.Services))
	configure(d.balancer, cfg)
	known := restore(c.predecessor, d.sets, cfg)
	// Listeners that open can serve at once what was good when an earlier lictor ended.
	if saved := savedSets(consul); len(saved) > 0 {
		d.sets.OnUpdate(saved)
		d.log.Info("saved endpoints are in use until consul answers", "services", len(saved))
	}
	inherited, err := c.openProxier(d, cfg)
	if err != nil {
		return nil, err
	}
	d.intake = newIntake(d.sets)
	first := d.firstSources(cfg, consul)
	if (inherited || c.patient) && !known { // clients may be waiting already
		first.await(ctx, d.log)
	}
	shown, passed, err := c.openListeners(d, cfg)
	if err == nil && c.predecessor != nil {
		err = d.takeOver(c.predecessor, passed)
	}
	if err != nil {
		if shown != nil && !passed { // the predecessor's file stays
			_ = shown.Close() // nobody has dialled it
		}
		first.abandon()
		d.cancel()
		d.proxier.Close()
		return nil, err
	}
	d.announce(cfg)
	first.commit(cfg)
	d.prober = lb.NewProber(d.balancer)
	d.prober.Resolver = d.resolver
	d.prober.Apply(checksOf(cfg))
	d.settle(c.predecessor, cfg, consul, shown)
	return d, nil
}

// settle begins what is not the service itself: the admin API at shown, and the registration.
func (d *daemon) settle(p *upgrade.Predecessor, cfg *config.Config, consul *discovery.Consul, shown net.Listener) {
	_ = d.upgrading.take(d.ctx) // nobody has it. Whoever asks by the API waits until all of this is there
	defer d.upgrading.giveBack()
	_ = d.reloading.take(d.ctx)
	defer d.reloading.giveBack()
	d.admin = d.serveAdmin(cfg.Admin, shown)
	d.detect(cfg)
	if p != nil {
		d.leftAlone(p, consul)
	}
	if err := d.register(cfg); err != nil {
		d.log.Error("not registered", "error", err)
	}
	d.running.Go(d.reloads)
	d.running.Go(func() { d.cycles.Run(d.ctx) })
}

// openProxier makes the proxier, and tells whether it has inherited sockets.
func (c *runCommand) openProxier(d *daemon, cfg *config.Config) (inherited bool, err error) {
	limit, loops := descriptorLimit(), spareProcessor(d.log)
	d.log.Info("starting", "version", newBuild().Version, "processors", loops, "descriptors", limit)
	_, forTraffic := shareDescriptors(limit)
	options := proxy.Options{
		LoadBalancer: d.balancer, Logger: d.log, MaxDescriptors: forTraffic, Resolver: d.resolver,
		Engine: engineOf(cfg.Engine), Loops: loops,
		Admit: d.admit, Inherited: c.predecessor.Sockets(), Hold: c.predecessor != nil,
	}
	if c.predecessor == nil {
		if options.Inherited, err = upgrade.ActivationSockets(os.Getenv); err != nil {
			return false, err
		}
	}
	if d.proxier, err = proxy.New(options); err != nil {
		return false, err
	}
	d.access = accesslog.New(accesslog.Outputs{Out: d.output.out, Err: d.output.err}, d.proxier.SetAccess, d.log)
	access, err := d.access.Prepare((*accesslog.Options)(cfg.AccessLog))
	if err != nil {
		d.proxier.Close()
		return false, err
	}
	access.Commit()
	return len(options.Inherited) > 0, nil
}

// openListeners opens those of services and, if there is to be one, that of the admin API. It reports whether that is the
// one which the predecessor has passed on.
func (c *runCommand) openListeners(d *daemon, cfg *config.Config) (shown net.Listener, passed bool, err error) {
	if err := d.proxier.Apply(proxyServices(cfg)); err != nil {
		return nil, false, err
	}
	d.detect(cfg)
	for _, one := range d.proxier.DropInherited() {
		d.log.Warn("inherited socket closed, no service listens there", "protocol", one.Protocol, "listen", one.Addr)
	}
	if l := inheritAdmin(c.predecessor, cfg.Admin, d.log); l != nil {
		return l, true, nil
	}
	shown, err = openAdmin(cfg.Admin, nil, d.log)
	return shown, false, err
}

// takeOver has this process serve instead of p. With admin it serves p's socket of the admin API too.
func (d *daemon) takeOver(p *upgrade.Predecessor, admin bool) error {
	b := newBuild()
	sessions, err := p.Sessions(upgrade.Build{Version: b.Version, Revision: b.Revision}, admin)
	if err != nil {
		return err
	}
	kept := d.proxier.Begin(sessions)
	d.log.Info("taken over from another process", "pid", p.State().PID, "sessions", len(sessions), "sessions_kept", kept)
	return nil
}

// leftAlone waits until p has let go of everything.
func (d *daemon) leftAlone(p *upgrade.Predecessor, consul *discovery.Consul) {
	if err := p.Serving(); err != nil {
		d.log.Warn("the earlier process has ended before its time", "error", err)
	}
	if consul != nil {
		consul.HoldState(false)
	}
}

// register makes the registration what cfg says. The caller has the turn of reloading.
func (d *daemon) register(cfg *config.Config) (err error) {
	former := d.registered
	if former != nil && former.cfg == cfg.Consul && former.admin == d.admin.address() {
		return nil
	}
	former.end()
	var next *registration
	if cfg.Consul.Register {
		next, err = register(cfg.Consul, d.admin.address(), d.log, d.ready)
	}
	if !d.registerAs(next) {
		next.end()
		return errEnding
	}
	return err
}

// registerAs notes the registration, which may be nil. It returns false if the daemon has ended meanwhile.
func (d *daemon) registerAs(r *registration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.registered = r
	}
	return !d.ended
}

// registration returns what this lictor is registered as, or nil.
func (d *daemon) registration() *registration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registered
}

// ready tells whether every service has had its first set.
func (d *daemon) ready() bool {
	select {
	case <-d.intake.ready:
		return true
	default:
		return false
	}
}

// firstSources starts the sources of the first configuration. What is in it is known when they have started; what is in Consul, soon.
func (d *daemon) firstSources(cfg *config.Config, consul *discovery.Consul) *sources {
	first := &sources{d: d, client: consul}
	if sets := staticSets(cfg); len(sets) > 0 {
		first.static = d.intake.start(discovery.NewStatic(sets), staticNames(cfg), d.log)
		<-first.static.complete
	}
	if consul != nil {
		first.consul = d.intake.start(consul, consulNames(cfg), d.log)
	}
	return first
}

// reloads reloads whenever that is wanted.
func (d *daemon) reloads() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.renewed:
			_, _ = d.Upgrade(d.ctx) // it logs what came of it
		case <-d.wanted:
			summary, err := d.Reload(d.ctx) // it logs what came of it
			d.admin.Reloaded(summary, err)
		}
	}
}

// wantUpgrade has another process take this one's place, soon.
func (d *daemon) wantUpgrade() {
	select {
	case d.renewed <- struct{}{}:
	default:
	}
}

// wantReload has the configuration read again, soon. Wants that come before that are one.
func (d *daemon) wantReload() {
	select {
	case d.wanted <- struct{}{}:
	default:
	}
}

// spareProcessor gives Go one processor more than there are, and returns how many there are. An event loop that waits keeps its processor
// for 10 ms, unless none is idle: then the runtime's monitor takes it away within microseconds, the loop has to find another one
// when it wakes, and the monitor, having found work, goes on looking every 20 µs. That was an eighth of all processor time under load.
func spareProcessor(log hclog.Logger) int {
	n := runtime.GOMAXPROCS(0)
	if allowed, err := allowedProcessors(); err != nil && os.Getenv("GOMAXPROCS") == "" {
		n = max(n, allowed)
		log.Warn("the system does not say how many processors there are; GOMAXPROCS can", "error", err, "processors", n)
	}
	runtime.GOMAXPROCS(n + 1)
	return n
}

// announce prints a line for each listener: what it serves, and from where. It does not wait until they are printed.
func (d *daemon) announce(cfg *config.Config) {
	from := map[string]string{}
	for _, s := range cfg.Services {
		from[s.Name] = sourceOf(&s)
	}
	var lines bytes.Buffer
	t := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	for _, l := range d.proxier.Listeners() {
		fmt.Fprintf(t, "%s\t%s %s -> %s\n", l.Service, l.Protocol, l.Addr, from[l.Service])
	}
	_ = t.Flush()                            // memory takes everything
	_, _ = d.output.out.Write(lines.Bytes()) // at once, so all of them find room
	d.running.Go(d.announced)
}

// announced warns if the listeners could not be printed.
func (d *daemon) announced() {
	if err := d.output.out.Flush(d.ctx); err != nil && d.ctx.Err() == nil {
		d.log.Warn("listeners not printed", "error", err)
	}
}
