package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type runCommand struct {
	console
	paths    pathList
	logLevel string
	logJSON  bool
	watch    bool
}

// A pathList is a flag that may be repeated. It keeps all values in order.
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

func (c *runCommand) Synopsis() string {
	return "Serve the services of a configuration"
}

func (c *runCommand) AutocompleteFlags() predictors {
	return completeFlags(c.flags(), predictors{
		"-config":    configurations(),
		"-log-level": oneOf(config.LogLevels()...),
	})
}

func (c *runCommand) AutocompleteArgs() predictor { return nil }

func (c *runCommand) Help() string {
	return `Usage: lictor run -config PATH [options]

  Opens the listeners of all services in the configuration, watches their
  instances in Consul, and forwards clients to them. Prints one line for each
  listener to stdout; the log goes to stderr. The log says "ready" when every
  service has had its first answer from Consul.

  The first SIGINT or SIGTERM stops lictor: it accepts no new clients, and gives
  open connections shutdown_grace (default: 10s) to finish before it cuts them.
  A second signal cuts them at once.

  SIGHUP makes lictor read the configuration again and apply the differences.
  Unchanged services keep every connection. Changed services keep their clients.
  Removed services let their connections finish. An invalid configuration
  changes nothing, and the log says what is wrong.

  SIGUSR2 does the same as "lictor upgrade": a new process takes over. The old
  one ends with its last connection, or after upgrade_grace.

Options:

  -config PATH        A file, or a directory whose *.hcl files are read in the
                      order of their names. May be repeated; all files together
                      are one configuration.
  -log-level LEVEL    trace, debug, info, warn, error or off. Overrides
                      log_level in the configuration.
  -log-json           Log in JSON. Overrides log_json in the configuration.
  -watch              Reload whenever the files change.

Exit codes:

  0    Lictor has stopped after SIGINT or SIGTERM, or another process has taken
       over.
  1    Lictor could not start or had to stop. The log says why.
  2    Wrong usage.

Examples:

    $ lictor run -config web.hcl
    $ lictor run -config /etc/lictor -log-level debug
    $ CONSUL_HTTP_ADDR=https://consul.example.com:8501 lictor run -config web.hcl
`
}

// unexpectedPath is the error for an argument of a command that takes paths only by -config.
func unexpectedPath(path string) error {
	return fmt.Errorf("unexpected argument %q; did you mean -config %s?", path, path)
}

func (c *runCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = unexpectedPath(rest[0])
	case slices.Contains(c.paths, ""):
		err = errors.New("-config is empty: name a file, or a directory of *.hcl files")
	case len(c.paths) == 0:
		err = errors.New("no configuration given: -config PATH names a file, or a directory of *.hcl files")
	case c.logLevel != "" && !slices.Contains(config.LogLevels(), c.logLevel):
		err = fmt.Errorf("%q is not a log level: use one of %s", c.logLevel, strings.Join(config.LogLevels(), ", "))
	}
	if err != nil {
		return c.usage("run", err)
	}
	var output *daemon.Output
	c.console, output = c.queued()
	defer output.Close()
	predecessor, err := daemon.FindPredecessor()
	if err != nil {
		fmt.Fprintf(c.err, "lictor: %s\n", visible.Lines(err.Error()))
		return exitFailed
	}
	program, err := daemon.ProgramPath()
	if err != nil {
		fmt.Fprintf(c.err, "lictor: the path of this program is unknown, so it cannot be upgraded: %v\n", err)
	}
	var watch *daemon.Watch
	if c.watch {
		watch = daemon.NewWatch(c.paths)
	}
	cfg, diags := c.load()
	if cfg == nil {
		predecessor.Failed(diags.Err())
		_ = diags.WriteText(c.err, isTerminal(c.err))
		return exitFailed
	}

	// Catch signals from here on, so that a signal during the start is neither lost nor fatal.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, daemon.Signals()...)
	defer signal.Stop(signals)
	b := newBuild()
	err = daemon.Run(daemon.Options{
		Config: cfg, Diagnostics: diags, Load: c.load, CommandLine: c.decided(), Watch: watch,
		Program: program, Predecessor: predecessor, Output: output, Version: b.Version, Revision: b.Revision,
	}, signals)
	return c.ended(err, diags, c.logJSON)
}

// queued returns a console that writes through a queue, so that a blocked stdout or stderr does not block Lictor. The
// caller must close the queue.
func (c console) queued() (console, *daemon.Output) {
	o := daemon.NewOutput(c.out, c.err)
	return console{in: c.in, out: o.Out(), err: o.Err()}, o
}

// ended returns the exit code for err, which daemon.Run has returned. If the daemon did not start, ended prints the
// reason. diags has the source lines for that.
func (c console) ended(err error, diags config.Diagnostics, asJSON bool) int {
	var refused *daemon.RefusedFiltersError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, daemon.ErrStuck): // the daemon has logged it
	case errors.As(err, &refused):
		diags.Diagnostics = refused.Diagnostics
		if err := diags.WriteText(c.err, isTerminal(c.err)); err != nil {
			fmt.Fprintf(c.err, "lictor: %s\n", visible.Lines(err.Error()))
		}
	default:
		for _, line := range daemon.Explain(err) {
			if asJSON { // the log is JSON, and programs read it
				daemon.NewLogger(&config.Config{LogJSON: true}, c.err).Error("not started", "error", line)
			} else {
				fmt.Fprintf(c.err, "lictor: %s\n", visible.Lines(line))
			}
		}
	}
	return exitFailed
}

// load reads the configuration and applies the options of the command line, which override the files.
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

// decided returns the names of the arguments that the command line overrides.
func (c *runCommand) decided() (names []string) {
	if c.logLevel != "" {
		names = append(names, "log_level")
	}
	if c.logJSON {
		names = append(names, "log_json")
	}
	return names
}
