package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"
	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

type runCommand struct {
	console
	paths    pathList
	logLevel string
	logJSON  bool
	watch    bool
	patient  bool // no listener opens before its service has endpoints, if that takes no more than a moment

	program     string               // see daemon
	predecessor *upgrade.Predecessor // nil: there is none
	output      *output              // that console prints through
}

// A pathList is a flag that may be given again and again.
type pathList []string

func (p *pathList) String() string { return strings.Join(*p, ",") }

func (p *pathList) Set(path string) error {
	*p = append(*p, path)
	return nil
}

func newRunCommand(c console) *runCommand { return &runCommand{console: c} }

func (c *runCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.Var(&c.paths, "config", "")
	f.StringVar(&c.logLevel, "log-level", "", "")
	f.BoolVar(&c.logJSON, "log-json", false, "")
	f.BoolVar(&c.watch, "watch", false, "")
	return f
}

func (c *runCommand) Synopsis() string { return "Serve what a configuration says" }

func (c *runCommand) AutocompleteFlags() complete.Flags {
	return completeFlags(c.flags(), complete.Flags{
		"-config":    configurations(),
		"-log-level": complete.PredictSet(config.LogLevels()...),
	})
}

func (c *runCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

func (c *runCommand) Help() string {
	return `Usage: lictor run -config PATH [options]

  Opens the listeners of all services in the configuration, follows their
  instances in Consul, and forwards to whichever comes next. What each listener
  serves is printed to stdout, a line each; the log goes to stderr. Once every
  service has had a first answer from Consul, "ready" is logged.

  The first SIGINT or SIGTERM ends it: no new clients are taken, and connections
  get shutdown_grace (10s unless configured) to finish, then are cut. A second
  signal cuts them at once.

  SIGHUP reads the configuration again and applies what is different: services
  that are the same keep every connection, those that changed keep their
  clients, and those that are gone let theirs finish. A configuration with a
  problem changes nothing; the log says what it is.

  SIGUSR2 does what lictor upgrade does: a new process takes this one's place,
  and this one ends when its last connection has, or after upgrade_grace.

Options:

  -config PATH        A file, or a directory whose *.hcl are read in the order
                      of their names. May be repeated; all together are one
                      configuration.
  -log-level LEVEL    trace, debug, info, warn, error or off; instead of the
                      configuration's log_level.
  -log-json           Log in JSON, whatever the configuration says.
  -watch              Do what SIGHUP does whenever the files change.

Examples:

    $ lictor run -config web.hcl
    $ lictor run -config /etc/lictor -log-level debug
    $ CONSUL_HTTP_ADDR=https://consul.example.com:8501 lictor run -config web.hcl
`
}

func (c *runCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("%q is one argument too many; did you mean -config %s?", rest[0], rest[0])
	case slices.Contains(c.paths, ""):
		err = errors.New("-config is empty: name a file, or a directory of *.hcl files")
	case len(c.paths) == 0:
		err = errors.New("no configuration given: -config PATH names a file, or a directory of *.hcl files")
	case c.logLevel != "" && !slices.Contains(config.LogLevels(), c.logLevel):
		err = fmt.Errorf("%q is no log level: use one of %s", c.logLevel, strings.Join(config.LogLevels(), ", "))
	}
	if err != nil {
		return c.usage("run", err)
	}
	c.queueOutput()
	defer c.output.close()
	if c.predecessor, err = upgrade.FindPredecessor(os.Getenv); err != nil {
		fmt.Fprintf(c.err, "lictor: %v\n", err)
		return exitFailed
	}
	if c.program, err = upgrade.ProgramPath(); err != nil {
		fmt.Fprintf(c.err, "lictor: where is this program? %v\n", err)
	}
	var before [sha256.Size]byte // so that what changes while it is read is read again
	if c.watch {
		before = fingerprint(c.paths)
	}
	cfg, diags := c.load()
	if cfg == nil {
		c.predecessor.Failed(diags.Err())
	}
	if err := diags.WriteText(c.err, isTerminal(c.err)); err != nil || cfg == nil {
		return exitFailed
	}

	// From here on, so that a signal during the start is not lost, nor fatal.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, upgrade.Signal)
	defer signal.Stop(signals)
	ignorePipes()

	return c.begin(func(ctx context.Context) (*daemon, error) {
		d, err := c.start(ctx, cfg, diags)
		if err == nil && c.watch {
			d.running.Go(func() { d.watchFiles(c.paths, before) })
		}
		return d, err
	}, signals)
}

// queueOutput has all that is printed from here on wait in a queue instead of having those wait who print.
func (c *runCommand) queueOutput() {
	c.output = newOutput(c.console)
	c.console = c.output.console(c.console)
}

// load reads the configuration. What the command line says comes before what the files say.
func (c *runCommand) load() (*config.Config, config.Diagnostics) {
	cfg, diags := config.Load(c.paths, config.Options{})
	if cfg == nil {
		return nil, diags
	}
	if c.logLevel != "" {
		cfg.LogLevel = c.logLevel
	}
	cfg.LogJSON = cfg.LogJSON || c.logJSON
	return cfg, diags
}

// decided are the arguments that load takes from the command line.
func (c *runCommand) decided() (names []string) {
	if c.logLevel != "" {
		names = append(names, "log_level")
	}
	if c.logJSON {
		names = append(names, "log_json")
	}
	return names
}

// withHints is err with what to do about each of the errors in it.
func withHints(err error) error {
	var several *multierror.Error
	if !errors.As(err, &several) {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	lines := make([]string, len(several.Errors))
	for i, e := range several.Errors {
		lines[i] = e.Error() + hint(e)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// A reportedError is an error that the user has been told of.
type reportedError struct{ error }

// explain reports each of the errors in err.
func (c *runCommand) explain(err error) {
	var several *multierror.Error
	var reported reportedError
	switch {
	case errors.As(err, &reported):
	case errors.As(err, &several):
		for _, e := range several.Errors {
			c.explain(e)
		}
	case c.logJSON: // whoever reads the log reads JSON
		newLogger(&config.Config{LogJSON: true}, c.err).Error("not started", "error", err.Error()+hint(err))
	default:
		fmt.Fprintf(c.err, "lictor: %v%s\n", err, hint(err))
	}
}

// hint is what to do about an error, where the error itself does not say.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return " (something else listens there: stop it, or choose another port; \"ss -ltnup\" shows who)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return " (this host has no such address)"
	case errors.Is(err, syscall.EACCES):
		return " (ports below 1024 need CAP_NET_BIND_SERVICE: run as root, by setcap cap_net_bind_service=+ep, or with AmbientCapabilities= in systemd)"
	}
	return ""
}

// checkOwnFilters asks Consul about the filters before anything is served. That Consul cannot be asked is no reason not to start. A
// filter that has saved endpoints was accepted once, so it need not keep them from being served.
func (c *runCommand) checkOwnFilters(
	ctx context.Context, cfg *config.Config, diags config.Diagnostics, consul *discovery.Consul, log hclog.Logger,
) error {
	if consul == nil || !hasFilters(cfg) || allSaved(cfg, consul) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	refused, err := checkFilters(ctx, cfg, consul)
	if err != nil {
		log.Debug("filters not checked", "error", err)
	}
	if len(refused) == 0 {
		return nil
	}
	diags.Diagnostics = refused
	if err := diags.WriteText(c.err, isTerminal(c.err)); err != nil {
		return err
	}
	return reportedError{diags.Err()}
}
