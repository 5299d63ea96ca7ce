package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/accesslog"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/healthcheck"
	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// newDaemon returns a daemon that does not run yet.
func newDaemon(o Options) *Daemon {
	d := &Daemon{
		o: o, load: o.Load, log: NewLogger(o.Config, o.Output.err),
		events: endpoints.NewEvents(), service: newNotifier(os.Getenv),
		wanted: make(chan struct{}, 1), asked: make(chan struct{}),
		reloading: newTurn(),
	}
	earlier := o.Predecessor.State()
	d.events.Begin(firstEvent(time.Now(), earlier.Events), earlier.History)
	d.events.LogTo(d.log.Named("endpoints"))
	d.upgrades = upgrade.NewUpgrader(d.tryUpgrade)
	if d.load == nil {
		d.load = errNothingToRead
	}
	o.Output.json.Store(o.Config.LogJSON)
	d.cfg.Store(o.Config)
	_, forTraffic := shareDescriptors(descriptorLimit())
	d.resolver = lb.NewResolver(proxy.MaxLookups(forTraffic))
	d.balancer = lb.NewRoundRobin()
	d.balancer.NotifyHealth(d.healthChanged)
	d.balancer.NotifyDenials(d.events.Denial)
	d.prober = lb.NewProber(d.balancer)
	d.prober.Resolver = d.resolver
	d.standbys = newStandbys(func(service string, endpoints []lb.Endpoint) {
		d.prober.Standby(service, endpoints)
		d.checker.Standby(service, endpoints)
	})
	d.checker = healthcheck.New(healthcheck.Options{
		Resolver: d.resolver, Logger: d.log.Named("check"),
		Changed: d.checkChanged, // sets exist before checks
	})
	d.keys = newKeyring(d.log.Named("tls"), d.certificateNews)
	d.exposed = newExposures(d)
	d.keys.mesh = meshKeeper{log: d.log.Named("mesh"), report: d.meshNews, client: d.clientOf, run: d.runUntilEnd,
		saved: earlier.Mesh, intentionsChanged: d.exposed.intentionsChanged}
	d.cycles = cycles.New(cycles.Options{
		Logger: d.log.Named("endpoints"), Changed: d.reconsider, Lookup: d.resolver.Lookup,
	})
	d.kernel = newKernelKeeper(d)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.ending, d.toEnd = context.WithCancel(d.ctx)
	// Log messages of libraries, such as those of net/http about unexpected answers, are for debugging.
	log.SetFlags(0)
	log.SetOutput(d.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	return d
}

// firstEvent returns the number before the first event of this process. The number is at least the predecessor's last
// event number. The number is also above all event numbers of earlier processes, which had fewer than one event in a
// microsecond. API clients may use float64, which is exact for these numbers until the year 2255.
func firstEvent(now time.Time, predecessors uint64) uint64 {
	return max(uint64(max(now.UnixMicro(), 0)), predecessors)
}

// Start opens the listeners, prints them, and starts the sources. With a predecessor, Start takes over from it. On
// error, Start leaves nothing running. After ctx has ended, Start does not wait for Consul.
//
// The caller must call Serve next.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	d := newDaemon(o)
	if err := d.start(ctx); err != nil {
		d.upgrades.End()
		d.kernel.close()
		d.prober.Close()
		d.checker.Close()
		d.resolver.Close()
		d.events.EndLog()
		d.cancel()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context) error {
	cfg, predecessor := d.o.Config, d.o.Predecessor
	d.warn(d.o.Diagnostics)
	standby := d.standbys.newReports()
	consul, err := d.newConsul(cfg, predecessor.State().Saved, standby)
	if err != nil {
		return err
	}
	if err := d.checkFilters(ctx, cfg, consul); err != nil {
		return err
	}
	if consul != nil && predecessor != nil {
		consul.HoldState(true)
	}
	d.sets = endpoints.NewSets(d.balancer, d.events, endpoints.Judges(d.cycles, d.checker))
	d.checker.SetResults(predecessor.State().Checked)
	d.checker.Apply(healthChecksOf(cfg))
	d.cycles.Prefer(predecessor.State().Links)
	d.detect(cfg)
	d.collector.tune(len(cfg.Services))
	_, exposed, ends, err := d.prepareTLS(cfg)
	if err != nil {
		return err
	}
	ends.Commit()
	kernelPath, err := d.kernel.prepare(cfg)
	if err != nil {
		return err
	}
	configure(d.balancer, cfg, d.keys.inForce)
	configureExposed(d.balancer, exposed)
	d.balancer.SetEjections(predecessor.State().Ejected)
	d.resolver.SetNames(predecessor.State().Names)
	known := restore(predecessor, d.sets, cfg)
	d.balancer.SetEmptied(predecessor.State().Emptied)
	d.balancer.SetDenials(predecessor.State().Denials)
	// Saved sets let the listeners serve before Consul answers.
	if saved := savedSets(consul); len(saved) > 0 {
		d.sets.OnUpdate(saved)
		d.log.Info("saved endpoints are in use until consul answers", "services", len(saved))
	}
	inherited, err := d.openProxier(cfg)
	if err != nil {
		return err
	}
	d.mux = endpoints.NewMux(d.sets)
	first := d.firstSources(cfg, consul, standby)
	if (inherited || d.o.AwaitEndpoints) && !known { // clients may be waiting already
		first.await(ctx, d.log)
	}
	awaitIdentities(ctx, d.keys.inForce, d.log)
	shown, err := d.openListeners(cfg, kernelPath)
	if err != nil {
		first.abort()
		d.proxier.Close()
		d.access.Stop()
		return err
	}
	d.announce()
	first.commit(cfg)
	d.prober.Apply(checksOf(cfg))
	d.settle(predecessor, cfg, consul, shown)
	if w := d.o.Watch; w != nil {
		d.running.Go(func() { w.run(d.ctx, d.log, d.wantReload) })
	}
	return nil
}

// settle starts everything besides forwarding: the admin API at shown (nil for none), the registration and the reloads.
func (d *Daemon) settle(p *upgrade.Predecessor, cfg *config.Config, consul *discovery.Consul, shown net.Listener) {
	_ = d.reloading.take(d.ctx) // never waits: d is not shared yet. API requests wait until settle ends
	defer d.reloading.giveBack()
	d.admin = d.serveAdmin(cfg.Admin, shown)
	d.detect(cfg)
	if p != nil {
		d.leftAlone(p, consul)
	}
	if err := d.register(cfg); err != nil {
		d.log.Error("not registered", "error", err)
	}
	d.exposed.start()
	d.running.Go(d.reloads)
	d.running.Go(func() { d.exposed.judge(d.ctx) })
	d.running.Go(func() { d.cycles.Run(d.ctx) })
	d.running.Go(func() { d.keys.store.Run(d.ctx) })
	d.running.Go(func() { d.kernel.run(d.ctx) })
}

// openProxier makes the proxier, and reports whether it inherited sockets.
func (d *Daemon) openProxier(cfg *config.Config) (inherited bool, err error) {
	limit, loops := descriptorLimit(), spareProcessors(d.log)
	d.log.Info("starting", "version", d.o.Version, "processors", loops, "descriptors", limit)
	_, forTraffic := shareDescriptors(limit)
	options := proxy.Options{
		LoadBalancer: goneTee{d.balancer, d.kernel}, Logger: d.log, MaxDescriptors: forTraffic, Resolver: d.resolver,
		Engine: engineOf(cfg.Engine), Loops: loops,
		Admit: d.admit, Inherited: d.o.Predecessor.Sockets(), Hold: d.o.Predecessor != nil,
	}
	if d.o.Predecessor == nil {
		if options.Inherited, err = upgrade.ActivationSockets(os.Getenv); err != nil {
			return false, err
		}
	}
	if d.proxier, err = proxy.New(options); err != nil {
		return false, err
	}
	d.formers = newFormers(d.balancer.SetForeign, d.proxier.SetForeignClients, &d.ledger)
	d.access = accesslog.New(accesslog.Outputs{Out: d.o.Output.out, Err: d.o.Output.err}, d.proxier.SetAccess, d.log)
	access, err := d.access.Prepare((*accesslog.Options)(cfg.AccessLog))
	if err != nil {
		d.proxier.Close()
		return false, err
	}
	access.Commit()
	return len(options.Inherited) > 0, nil
}

// openListeners opens the services' listeners, commits the kernel path, makes this process serve instead of a
// predecessor, and returns the admin API's listener. The returned listener is nil if the API has none.
func (d *Daemon) openListeners(cfg *config.Config, kernelPath step) (shown net.Listener, err error) {
	exposed := exposedServices(d.exposed.instances())
	if err := d.proxier.Apply(append(proxyServices(cfg, d.keys.inForce), exposed...)); err != nil {
		return nil, err
	}
	d.detect(cfg)
	kernelPath.Commit() // before the predecessor's ends
	for _, one := range d.proxier.DropInherited() {
		d.log.Warn("inherited socket closed, no service listens there", "protocol", one.Protocol, "listen", one.Addr)
	}
	p := d.o.Predecessor
	passed := inheritAdmin(p, cfg.Admin, d.log)
	if shown = passed; shown == nil {
		if shown, err = openAdmin(cfg.Admin, nil, d.log); err != nil {
			return nil, err
		}
	}
	if p == nil {
		return shown, nil
	}
	if err := d.takeOver(p, passed != nil); err != nil {
		if shown != nil && passed == nil { // the predecessor keeps a socket that it passed on
			_ = shown.Close() // no client has connected yet
		}
		return nil, err
	}
	return shown, nil
}

// takeOver makes this process serve instead of p. If admin is true, this process also serves p's admin socket.
func (d *Daemon) takeOver(p *upgrade.Predecessor, admin bool) error {
	sessions, err := p.Sessions(upgrade.Build{Version: d.o.Version, Revision: d.o.Revision}, admin)
	if err != nil {
		return err
	}
	d.readLedger(p)
	d.formers.begin(p.Uses())
	kept := d.proxier.Begin(sessions)
	d.log.Info("taken over from another process", "pid", p.State().PID, "sessions",
		len(sessions), "sessions_kept", kept)
	return nil
}

// leftAlone waits until p has released everything. After that, leftAlone lets the Consul client save answers.
func (d *Daemon) leftAlone(p *upgrade.Predecessor, consul *discovery.Consul) {
	formers, err := p.Serving()
	if err != nil {
		d.log.Warn("the replaced process ended before it had released everything", "error", err)
	}
	d.readLedger(p)
	d.formers.follow(formers, d.running.Go)
	if consul != nil {
		consul.HoldState(false)
	}
}

// spareProcessors sets GOMAXPROCS half as high again as the number of processors, and returns that number. If no
// processor is idle, the runtime's monitor takes the processor from a waiting event loop within microseconds. The loop
// must then find another processor when it wakes. The monitor, having found work, keeps polling every 20 us, which cost
// an eighth of all processor time under load. With an idle processor, a waiting loop keeps its own for 10 ms.
//
// One idle processor would do for that. The others are for the goroutines that do the TLS handshakes of clients, half
// as many as loops: a handshake that gives way would otherwise rest with the processor of Go that a loop needs.
func spareProcessors(log hclog.Logger) int {
	n := runtime.GOMAXPROCS(0)
	if allowed, err := allowedProcessors(); err != nil && os.Getenv("GOMAXPROCS") == "" {
		n = max(n, allowed)
		log.Warn("the number of processors is unknown, set GOMAXPROCS if this is wrong", "error", err,
			"processors", n)
	}
	runtime.GOMAXPROCS(n + max(1, n/2))
	return n
}

// announce prints a line for each listener: its service, its address and the source. announce does not wait for the
// output.
func (d *Daemon) announce() {
	from := map[string]string{}
	for _, s := range d.configured() {
		from[s.Name] = s.Source
	}
	var lines bytes.Buffer
	t := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	for _, l := range d.proxier.Listeners() {
		fmt.Fprintf(t, "%s\t%s %s -> %s\n", l.Service, l.Protocol, l.Addr, from[l.Service])
	}
	_ = t.Flush()                              // writing to memory cannot fail
	_, _ = d.o.Output.out.Write(lines.Bytes()) // in one write, so that all lines are queued together
	d.running.Go(d.announced)
}

// announced logs a warning if the listeners could not be printed.
func (d *Daemon) announced() {
	if err := d.o.Output.out.Flush(d.ctx); err != nil && d.ctx.Err() == nil {
		d.log.Warn("the list of listeners could not be printed", "error", err)
	}
}
