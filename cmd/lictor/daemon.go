package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A daemon is a lictor at work: sources feed the balancer, and the proxier asks it.
type daemon struct {
	cfg     *config.Config
	log     hclog.Logger
	proxier *proxy.Proxier
	prober  *lb.Prober
	first   *firstSets

	cancel  context.CancelFunc // ends the sources
	sources sync.WaitGroup
}

// start opens the listeners, says what they serve, and starts the sources. Either all of that, or an error and nothing.
func (c *runCommand) start(cfg *config.Config, diags config.Diagnostics) (*daemon, error) {
	d := &daemon{cfg: cfg, log: newLogger(cfg, c.err)}
	// What libraries have to say (net/http, of answers that it did not expect) is for those who look closely.
	log.SetFlags(0)
	log.SetOutput(d.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	consul, err := newConsul(cfg, d.log)
	if err != nil {
		return nil, err
	}
	if err := c.checkOwnFilters(cfg, diags, consul, d.log); err != nil {
		return nil, err
	}
	limit, loops := descriptorLimit(), spareProcessor()
	d.log.Info("starting", "version", newBuild().Version, "processors", loops, "descriptors", limit)

	balancer := lb.NewBalancer()
	configure(balancer, cfg)
	// Listeners that open can serve at once what was good when an earlier lictor ended.
	if saved := savedSets(consul); len(saved) > 0 {
		balancer.OnUpdate(saved)
		d.log.Info("saved endpoints are in use until consul answers", "services", len(saved))
	}
	d.proxier, err = proxy.New(proxy.Options{LoadBalancer: balancer, Logger: d.log, MaxDescriptors: limit, Engine: engineOf(cfg.Engine), Loops: loops})
	if err != nil {
		return nil, err
	}
	if err := d.proxier.Apply(proxyServices(cfg)); err != nil {
		d.proxier.Close()
		return nil, err
	}
	if err := announce(c.out, cfg, d.proxier.Listeners()); err != nil {
		d.log.Warn("listeners not printed", "error", err)
	}

	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	d.first = newFirstSets(cfg, balancer)
	d.prober = lb.NewProber(balancer)
	d.prober.Apply(checksOf(cfg))
	d.run(ctx, discovery.NewStatic(staticSets(cfg)))
	if consul != nil {
		d.run(ctx, consul)
	}
	return d, nil
}

// spareProcessor gives Go one processor more than there are, and returns how many there are. An event loop that waits keeps its processor
// for 10 ms, unless none is idle: then the runtime's monitor takes it away within microseconds, the loop has to find another one
// when it wakes, and the monitor, having found work, goes on looking every 20 µs. That was an eighth of all processor time under load.
func spareProcessor() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(n + 1)
	return n
}

func (d *daemon) run(ctx context.Context, s discovery.Source) {
	d.sources.Go(func() {
		if err := s.Run(ctx, d.first); err != nil {
			d.log.Error("endpoints are not followed", "error", err)
		}
	})
}

// serve runs until a signal ends it, and returns the exit code.
func (d *daemon) serve(signals <-chan os.Signal) int {
	defer d.sources.Wait()
	defer d.cancel()
	defer d.prober.Close()
	ready := d.first.complete
	for {
		select {
		case <-ready:
			d.log.Info("ready", "services", len(d.cfg.Services), "listeners", len(d.proxier.Listeners()))
			ready = nil
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.log.Warn("SIGHUP ignored: this version does not reload, restart it to change the configuration")
				continue
			}
			return d.stop(s, signals)
		}
	}
}

// stop ends the daemon after the signal s. Endpoints are followed until the last connection has ended.
func (d *daemon) stop(s os.Signal, signals <-chan os.Signal) int {
	d.log.Info("stopping", "signal", s.String(), "grace", d.cfg.ShutdownGrace.String())
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.ShutdownGrace)
	defer cancel()
	stopped, why := make(chan error, 1), "shutdown_grace is over"
	go d.shutdown(ctx, stopped)
	for {
		select {
		case err := <-stopped:
			if err != nil {
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
	stopped <- d.proxier.Shutdown(ctx)
}

// announce prints a line for each listener: what it serves, and from where.
func announce(w io.Writer, cfg *config.Config, listeners []proxy.Listener) error {
	from := map[string]string{}
	for _, s := range cfg.Services {
		if s.Consul == nil {
			from[s.Name] = count(len(s.Static.Endpoints), "static endpoint")
		} else {
			from[s.Name] = fmt.Sprintf("consul service %q", s.Consul.Service)
		}
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

// firstSets passes updates on to the balancer, and knows when every service has had its first.
type firstSets struct {
	balancer *lb.Balancer
	complete chan struct{} // closed then

	mu      sync.Mutex
	missing map[string]bool // services without a set; guarded by mu
}

func newFirstSets(cfg *config.Config, balancer *lb.Balancer) *firstSets {
	f := &firstSets{balancer: balancer, complete: make(chan struct{}), missing: map[string]bool{}}
	for _, s := range cfg.Services {
		f.missing[s.Name] = true
	}
	return f
}

// OnUpdate implements discovery.Sink.
func (f *firstSets) OnUpdate(updates []lb.Endpoints) {
	f.balancer.OnUpdate(updates)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.missing) == 0 {
		return
	}
	for _, u := range updates {
		delete(f.missing, u.Service)
	}
	if len(f.missing) == 0 {
		close(f.complete)
	}
}
