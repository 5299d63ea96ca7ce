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
	"syscall"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/cycles"
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
	prober   *lb.Prober
	intake   *intake
	service  *notifier // what started this process, and wants to know how it does
	events   *admin.Events
	sets     *admin.Sets      // between the sources and the balancer
	cycles   *cycles.Detector // of endpoints that lead back here
	admin    *adminServer
	shown    atomic.Pointer[shownServices] // what admin was told last; nil: nothing yet
	access   *accessLogs

	program    string                    // that a successor is of; empty: this process cannot be replaced
	upgrading  sync.Mutex                // one upgrade at a time; to be had before reloading
	upgradable context.Context           // ends when the process is to end
	noUpgrade  context.CancelFunc        // ends upgradable
	takenOver  atomic.Pointer[takenOver] // nil: this process serves
	replaced   chan struct{}             // closed when it does not any more

	reloading  sync.Mutex                       // one reload at a time; guards the following
	staticFeed *feed                            // nil: no service is static
	consulFeed *feed                            // nil: no service is in Consul
	consul     atomic.Pointer[discovery.Consul] // nil: no service is in Consul; anybody may look at it
	registered *registration                    // nil: not in Consul, by configuration
	lastReload atomic.Pointer[outcome]

	ctx     context.Context // ends with the daemon
	cancel  context.CancelFunc
	running sync.WaitGroup
	wanted  chan struct{} // reloads that signals and changed files ask for
	renewed chan struct{} // upgrades that signals ask for
}

// newDaemon returns a daemon that does nothing yet.
func (c *runCommand) newDaemon(cfg *config.Config) *daemon {
	d := &daemon{
		load: c.load, decided: c.decided(), log: newLogger(cfg, c.err), output: c.output, events: admin.NewEvents(), service: newNotifier(os.Getenv), program: c.program,
		wanted: make(chan struct{}, 1), renewed: make(chan struct{}, 1), replaced: make(chan struct{}),
	}
	d.output.json.Store(cfg.LogJSON)
	d.cfg.Store(cfg)
	d.cycles = cycles.New(cycles.Options{Logger: d.log.Named("endpoints"), Changed: d.reconsider})
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.upgradable, d.noUpgrade = context.WithCancel(d.ctx)
	// What libraries have to say (net/http, of answers that it did not expect) is for those who look closely.
	log.SetFlags(0)
	log.SetOutput(d.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	return d
}

// start opens the listeners, says what they serve, and starts the sources. With a predecessor it takes over from that. Either all of that,
// or an error and nothing.
func (c *runCommand) start(cfg *config.Config, diags config.Diagnostics) (*daemon, error) {
	d := c.newDaemon(cfg)
	consul, err := d.newConsul(cfg, c.predecessor.saved())
	if err != nil {
		return nil, err
	}
	if err := c.checkOwnFilters(cfg, diags, consul, d.log); err != nil {
		return nil, err
	}
	if consul != nil && c.predecessor != nil {
		consul.HoldState(true)
	}
	d.balancer = lb.NewBalancer()
	d.balancer.NotifyHealth(d.events.Health)
	d.sets = admin.NewSets(d.balancer, d.events, d.cycles)
	d.cycles.Prefer(c.predecessor.links())
	d.detect(cfg)
	tuneCollector(len(cfg.Services))
	configure(d.balancer, cfg)
	known := c.predecessor.restore(d.sets, cfg)
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
		first.await(d.ctx, d.log)
	}
	shown, err := c.openListeners(d, cfg)
	if err == nil && c.predecessor != nil {
		err = d.takeOver(c.predecessor)
	}
	if err != nil {
		if shown != nil && !c.predecessor.hasAdmin() { // whose file stays
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
	d.prober.Apply(checksOf(cfg))
	d.upgrading.Lock() // whoever asks by the API waits until all of this is there
	defer d.upgrading.Unlock()
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.admin = d.serveAdmin(cfg.Admin, shown)
	d.detect(cfg)
	if c.predecessor != nil {
		d.leftAlone(c.predecessor, consul)
	}
	if err := d.register(cfg); err != nil {
		d.log.Error("not registered", "error", err)
	}
	d.running.Go(d.reloads)
	d.running.Go(func() { d.cycles.Run(d.ctx) })
	return d, nil
}

// openProxier makes the proxier, and tells whether it has inherited sockets.
func (c *runCommand) openProxier(d *daemon, cfg *config.Config) (inherited bool, err error) {
	limit, loops := descriptorLimit(), spareProcessor()
	d.log.Info("starting", "version", newBuild().Version, "processors", loops, "descriptors", limit)
	_, forTraffic := shareDescriptors(limit)
	options := proxy.Options{
		LoadBalancer: d.balancer, Logger: d.log, MaxDescriptors: forTraffic, Engine: engineOf(cfg.Engine), Loops: loops,
		Admit: d.admit, Inherited: c.predecessor.inherited(), Hold: c.predecessor != nil,
	}
	if c.predecessor == nil {
		if options.Inherited, err = inheritedSockets(os.Getenv); err != nil {
			return false, err
		}
	}
	if d.proxier, err = proxy.New(options); err != nil {
		return false, err
	}
	d.access = &accessLogs{log: d.log, tell: d.proxier.SetAccess}
	access, err := d.access.prepare(cfg.AccessLog)
	if err != nil {
		d.proxier.Close()
		return false, err
	}
	access.do()
	return len(options.Inherited) > 0, nil
}

// openListeners opens those of services and, if there is to be one, that of the admin API.
func (c *runCommand) openListeners(d *daemon, cfg *config.Config) (shown net.Listener, err error) {
	if err := d.proxier.Apply(proxyServices(cfg)); err != nil {
		return nil, err
	}
	d.detect(cfg)
	for _, one := range d.proxier.DropInherited() {
		d.log.Warn("inherited socket closed, no service listens there", "protocol", one.Protocol, "listen", one.Addr)
	}
	if l := c.predecessor.adminListener(cfg.Admin, d.log); l != nil {
		return l, nil
	}
	return openAdmin(cfg.Admin, nil, d.log)
}

// takeOver has this process serve instead of p.
func (d *daemon) takeOver(p *predecessor) error {
	sessions, err := p.sessions()
	if err != nil {
		return err
	}
	kept := d.proxier.Begin(sessions)
	d.log.Info("taken over from another process", "pid", p.state.PID, "sessions", len(sessions), "sessions_kept", kept)
	return nil
}

// leftAlone waits until p has let go of everything.
func (d *daemon) leftAlone(p *predecessor, consul *discovery.Consul) {
	if err := p.serving(); err != nil {
		d.log.Warn("the earlier process has ended before its time", "error", err)
	}
	if consul != nil {
		consul.HoldState(false)
	}
}

// register makes the registration what cfg says. The caller holds reloading, or is the only one yet.
func (d *daemon) register(cfg *config.Config) (err error) {
	if d.registered != nil && d.registered.cfg == cfg.Consul && d.registered.admin == d.admin.address() {
		return nil
	}
	d.registered.end()
	d.registered = nil
	if cfg.Consul.Register {
		d.registered, err = register(cfg.Consul, d.admin.address(), d.log, d.ready)
	}
	return err
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
func spareProcessor() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(n + 1)
	return n
}

// serve runs until a signal ends it, and returns the exit code.
func (d *daemon) serve(signals <-chan os.Signal) int {
	defer d.access.stop()
	defer d.admin.stop()
	defer d.end()
	d.service.ready(d.status())
	alive, stopTicks := d.service.ticks()
	defer stopTicks()
	ready := d.intake.ready
	for {
		select {
		case <-ready:
			d.log.Info("ready", "services", len(d.cfg.Load().Services), "listeners", len(d.proxier.Listeners()))
			ready = nil
			d.service.status(d.status())
		case <-alive:
			d.proxier.Listeners() // it answers only if nothing is stuck
			d.service.alive()
		case <-d.replaced:
			return d.finish(signals)
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				d.wantReload()
			case upgradeSignal:
				d.wantUpgrade()
			default:
				if d.endUpgrade() {
					return d.stop(s, signals)
				}
				return d.finish(signals, s)
			}
		}
	}
}

// endUpgrade lets no upgrade begin, gives up one that is under way, and tells whether this process still serves.
func (d *daemon) endUpgrade() bool {
	d.noUpgrade()
	d.upgrading.Lock()
	defer d.upgrading.Unlock()
	return d.takenOver.Load() == nil
}

// status is the daemon's state in a line.
func (d *daemon) status() string {
	services := count(len(d.cfg.Load().Services), "service")
	if d.ready() {
		return "serving " + services
	}
	return "serving " + services + ", not all of them have had an answer from Consul yet"
}

// end ends what runs beside the proxier.
func (d *daemon) end() {
	d.cancel()
	d.reloading.Lock() // else a reload that is under way has sources of its own
	for _, f := range []*feed{d.staticFeed, d.consulFeed} {
		if f != nil {
			d.running.Go(f.stop)
		}
	}
	d.registered.end()
	d.prober.Close()
	d.reloading.Unlock()
	d.running.Wait()
}

// stop ends the daemon after the signal s. Endpoints are followed until the last connection has ended.
func (d *daemon) stop(s os.Signal, signals <-chan os.Signal) int {
	grace := d.cfg.Load().ShutdownGrace
	d.log.Info("stopping", "signal", s.String(), "grace", grace.String())
	d.service.stopping("connections have " + grace.String() + " to finish")
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	stopped, why := make(chan error, 1), "shutdown_grace is over"
	go d.shutdown(ctx, stopped)
	for {
		select {
		case err := <-stopped:
			if err != nil && grace > 0 {
				d.log.Warn("stopped, what was still open was cut", "reason", why)
			} else {
				d.log.Info("stopped")
			}
			return exitOK
		case s := <-signals:
			if s != syscall.SIGHUP && s != upgradeSignal {
				why = "second signal"
				d.log.Warn("cutting connections at once", "signal", s.String())
				cancel()
			}
		}
	}
}

func (d *daemon) shutdown(ctx context.Context, stopped chan<- error) {
	d.running.Go(d.tellStopping) // beside it: a Consul that hangs must hold up nothing
	stopped <- d.proxier.Shutdown(ctx)
}

func (d *daemon) tellStopping() {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.registered.stopping()
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
