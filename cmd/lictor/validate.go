package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/mattn/go-isatty"
	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type validateCommand struct {
	console
	json, offline, look bool
}

func (c *validateCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("validate", flag.ContinueOnError)
	f.BoolVar(&c.json, "json", false, "")
	f.BoolVar(&c.offline, "offline", false, "")
	f.BoolVar(&c.look, "live", false, "")
	return f
}

func (c *validateCommand) Synopsis() string {
	return "Check a configuration, and report every problem at once"
}
func (c *validateCommand) AutocompleteFlags() complete.Flags    { return completeFlags(c.flags(), nil) }
func (c *validateCommand) AutocompleteArgs() complete.Predictor { return configurations() }

func (c *validateCommand) Help() string {
	return `Usage: lictor validate [options] PATH...

  Checks a configuration as "lictor run" would read it, and reports every
  problem at once, each with its file, line and column. All PATHs together are
  one configuration; of a directory all *.hcl count, in the order of their
  names. Nothing is served, and no address is taken.

  Where a service has a filter, Consul is asked whether it accepts it. If Consul
  cannot be asked within 3 seconds, a note says so; that is no failure. Another
  note names addresses to listen at that are in use on this host. An access log
  that cannot be opened here is a problem.

  Exits with 0 if the configuration is valid, and with 1 if it is not.

Options:

  -json       Print the result to stdout as JSON, in the format of
              "terraform validate -json".
  -offline    Do not ask Consul, and do not look at the access log and the
              addresses of this host.
  -live       Look at the world too: what each service would be served by now,
              instance by instance, with the reason why one is left out; whether
              the token has the rights for that; and whether the addresses to
              listen at can be used. Needs Consul. Nothing is served.

Examples:

    $ lictor validate /etc/lictor
    $ lictor validate base.hcl services.d
    $ lictor validate -live /etc/lictor
    $ lictor validate -offline -json web.hcl | jq .error_count
`
}

func (c *validateCommand) Run(args []string) int {
	paths, err := parse(c.flags(), args)
	if err == nil && len(paths) == 0 {
		err = errNoPath
	}
	if err == nil && c.look && c.offline {
		err = errors.New("-live and -offline exclude each other")
	}
	if err != nil {
		return c.usage("validate", err)
	}
	cfg, diags := config.Load(paths, config.Options{})
	if cfg != nil && !c.offline {
		diags.Extend(daemon.CheckHost(cfg))
		if c.look {
			c.live(cfg, &diags)
		} else {
			c.ask(cfg, &diags)
			c.noteAddresses(daemon.InUse(cfg), &diags)
		}
	}
	return c.report(cfg, diags)
}

// ask adds what Consul says of the filters to diags.
func (c *validateCommand) ask(cfg *config.Config, diags *config.Diagnostics) {
	refused, err := daemon.CheckFilters(context.Background(), cfg)
	diags.Extend(refused)
	if err != nil {
		c.note(diags, "Filters not checked", err.Error())
	}
}

// note tells what is no problem of the configuration.
func (c *validateCommand) note(diags *config.Diagnostics, summary, detail string) {
	if c.json {
		diags.Extend(hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: summary, Detail: detail}})
		return
	}
	fmt.Fprintf(c.err, "note: %s: %s\n", strings.ToLower(summary[:1])+summary[1:], visible.Lines(detail))
}

// maxNamed is how many addresses a note names.
const maxNamed = 3

// noteAddresses tells which addresses are in use.
func (c *validateCommand) noteAddresses(inUse []string, diags *config.Diagnostics) {
	if len(inUse) == 0 {
		return
	}
	named := strings.Join(inUse[:min(len(inUse), maxNamed)], ", ")
	if more := len(inUse) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	c.note(diags, "Addresses in use", named+"; if a lictor runs with this configuration, all is well")
}

// liveTimeout is how long validate -live takes for everything together.
const liveTimeout = 30 * time.Second

// live looks at the world that the configuration is for. It adds problems to diags and prints the rest.
func (c *validateCommand) live(cfg *config.Config, diags *config.Diagnostics) {
	why := fmt.Errorf("no answer within %v", liveTimeout)
	ctx, cancel := context.WithTimeoutCause(context.Background(), liveTimeout, why)
	defer cancel()
	all, problems := daemon.Look(ctx, cfg)
	diags.Extend(problems)
	if c.json {
		return
	}
	for i := range all {
		for _, line := range all[i].Describe() {
			fmt.Fprintln(c.out, visible.Text(line))
		}
	}
}

func (c *validateCommand) report(cfg *config.Config, diags config.Diagnostics) int {
	var err error
	if c.json {
		err = diags.WriteJSON(c.out)
	} else {
		err = diags.WriteText(c.err, isTerminal(c.err))
	}
	if !diags.HasErrors() && !c.json && err == nil {
		services, listeners := config.Plural(len(cfg.Services), "service"), config.Plural(cfg.Listeners(), "listener")
		_, err = fmt.Fprintf(c.out, "ok: %s, %s\n", services, listeners)
	}
	if err != nil {
		fmt.Fprintf(c.err, "lictor validate: %v\n", err)
	}
	if err != nil || diags.HasErrors() {
		return exitFailed
	}
	return exitOK
}

// isTerminal tells whether colour is welcome on w; https://no-color.org is honoured.
func isTerminal(w io.Writer) bool {
	if queue, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = queue.Unwrap()
	}
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && isatty.IsTerminal(f.Fd())
}
