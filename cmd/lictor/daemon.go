package main

import (
	"context"
	"fmt"
	"io"
	"log"
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
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A daemon is a lictor at work: sources feed the balancer, and the proxier asks it.
type daemon struct {
	cfg      atomic.Pointer[config.Config] // in force
	load     func() (*config.Config, config.Diagnostics)
	decided  []string // arguments that load takes from the command line
	log      hclog.Logger
	out      io.Writer
	proxier  *proxy.Proxier
	balancer *lb.Balancer
	prober   *lb.Prober
	intake   *intake
	service  *notifier // what started this process, and wants to know how it does
	events   *admin.Events
	sets     *admin.Sets // between the sources and the balancer
	admin    *adminServer
	access   *accessLogs

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
}

// start opens the listeners, says what they serve, and starts the sources. Either all of that, or an error and nothing.
func (c *runCommand) start(cfg *config.Config, diags config.Diagnostics) (*daemon, error) {
	d := &daemon{load: c.load, decided: c.decided(), log: newLogger(cfg, c.err), out: c.out, events: admin.NewEvents(), service: newNotifier(os.Getenv), wanted: make(chan struct{}, 1)}
	d.cfg.Store(cfg)
	// What libraries have to say (net/http, of answers that it did not expect) is for those who look closely.
	log.SetFlags(0)
	log.SetOutput(d.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	var err error
	consul, err := newConsul(cfg, d.log)
	if err != nil {
		return nil, err
	}
	if err := c.checkOwnFilters(cfg, diags, consul, d.log); err != nil {
		return nil, err
	}
	limit, loops := descriptorLimit(), spareProcessor()
	d.log.Info("starting", "version", newBuild().Version, "processors", loops, "descriptors", limit)

	inherited, err := inheritedSockets(os.Getenv)
	if err != nil {
		return nil, err
	}
	d.balancer = lb.NewBalancer()
	d.sets = admin.NewSets(d.balancer, d.events)
	tuneCollector(len(cfg.Services))
	configure(d.balancer, cfg)
	// Listeners that open can serve at once what was good when an earlier lictor ended.
	if saved := savedSets(consul); len(saved) > 0 {
		d.sets.OnUpdate(saved)
		d.log.Info("saved endpoints are in use until consul answers", "services", len(saved))
	}
	options := proxy.Options{
		LoadBalancer: d.balancer, Logger: d.log, MaxDescriptors: limit, Engine: engineOf(cfg.Engine), Loops: loops, Inherited: inherited,
	}
	if d.proxier, err = proxy.New(options); err != nil {
		return nil, err
	}
	d.access = &accessLogs{log: d.log, tell: d.proxier.SetAccess}
	access, err := d.access.prepare(cfg.AccessLog)
	if err != nil {
		d.proxier.Close()
		return nil, err
	}
	access.do()
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.intake = newIntake(d.sets)
	first := d.firstSources(cfg, consul)
	if len(inherited) > 0 || c.patient { // clients may be waiting already
		first.await(d.ctx, d.log)
	}
	if err := d.proxier.Apply(proxyServices(cfg)); err != nil {
		first.abandon()
		d.cancel()
		d.proxier.Close()
		return nil, err
	}
	for _, one := range d.proxier.DropInherited() {
		d.log.Warn("inherited socket closed, no service listens there", "protocol", one.Protocol, "listen", one.Addr)
	}
	shown, err := openAdmin(cfg.Admin, nil, d.log)
	if err != nil {
		first.abandon()
		d.cancel()
		d.proxier.Close()
		return nil, err
	}
	if err := announce(d.out, cfg, d.proxier.Listeners()); err != nil {
		d.log.Warn("listeners not printed", "error", err)
	}

	first.commit(cfg)
	d.prober = lb.NewProber(d.balancer)
	d.prober.Apply(checksOf(cfg))
	d.admin = d.serveAdmin(cfg.Admin, shown)
	if err := d.register(cfg); err != nil {
		d.log.Error("not registered", "error", err)
	}
	d.running.Go(d.reloads)
	return d, nil
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
		case <-d.wanted:
			summary, err := d.Reload(d.ctx) // it logs what came of it
			d.admin.Reloaded(summary, err)
		}
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
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.wantReload()
				continue
			}
			return d.stop(s, signals)
		}
	}
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
			if s != syscall.SIGHUP {
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

// announce prints a line for each listener: what it serves, and from where.
func announce(w io.Writer, cfg *config.Config, listeners []proxy.Listener) error {
	from := map[string]string{}
	for _, s := range cfg.Services {
		from[s.Name] = sourceOf(&s)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range listeners {
		fmt.Fprintf(t, "%s\t%s %s -> %s\n", l.Service, l.Protocol, l.Addr, from[l.Service])
	}
	return t.Flush()
}

func newLogger(cfg *config.Config, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "lictor",
		Level:      hclog.LevelFromString(cfg.LogLevel),
		Output:     w,
		JSONFormat: cfg.LogJSON,
		TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
}
