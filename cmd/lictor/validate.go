package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type validateCommand struct {
	asker
	offline, look bool
}

func newValidateCommand(c console) *validateCommand {
	return &validateCommand{asker: asker{console: c, name: "validate"}}
}

func (c *validateCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("validate", flag.ContinueOnError)
	c.askFlags(f)
	f.BoolVar(&c.offline, "offline", false, "")
	f.BoolVar(&c.look, "live", false, "")
	return f
}

func (c *validateCommand) Synopsis() string {
	return "Check a configuration, and report all problems together"
}
func (c *validateCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *validateCommand) AutocompleteArgs() predictor   { return configurations() }

func (c *validateCommand) Help() string {
	return `Usage: lictor validate [options] PATH...

  Checks a configuration in the same way as "lictor run", and reports all
  problems together, each with its file, line and column. Of a file with a
  syntax error, only that error is reported. All PATHs together are one
  configuration. Of a directory, all *.hcl files are read in the order of their
  names. The PATH "-" stands for stdin. Nothing is served, and no address is
  taken.

  If a service has a filter, Consul is asked whether the filter is valid. If
  Consul does not answer within 3 seconds, a note says so; that is not a
  failure. Another note lists listen addresses that another process uses on this
  host. The addresses of the running lictor are not listed. An access log that
  cannot be opened on this host is a problem.

Options:

  -offline            Do not ask Consul and the running lictor, and do not check
                      the access log and the addresses of this host.
  -live               Also show the instances that each service would use now,
                      and why other instances are left out. Of several addresses
                      of Consul, show which answer. Check that the token
                      may read them, that the listen addresses can be used, and
                      that this host is set up for transparent services and for
                      the kernel path. For
                      services of the mesh, ask for the certificate of each
                      identity, follow the discovery chain, and shake hands
                      with one instance. For exposed services, check what
                      they need at this host and in Consul. Needs Consul.
                      Nothing is served.
` + askOptions + `  -json               Print the result to stdout as JSON, in the format of
                      "terraform validate -json".

Exit codes:

  0    The configuration is valid.
  1    The configuration has problems.
  2    Wrong usage.

Examples:

    $ lictor validate /etc/lictor
    $ git show HEAD:lictor.hcl | lictor validate -
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
		err = errors.New("-live and -offline cannot be used together")
	}
	if err != nil {
		return c.usage("validate", err)
	}
	cfg, diags := config.Load(paths, config.Options{Stdin: c.in})
	if cfg != nil && !c.offline {
		diags.Extend(daemon.CheckHost(cfg))
		own := c.own(&diags)
		if c.look {
			c.live(cfg, own, &diags)
		} else {
			c.ask(cfg, &diags)
			c.noteAddresses(daemon.InUse(cfg, own), len(own) > 0, &diags)
		}
	}
	return c.report(cfg, diags)
}

// ownTimeout is the timeout for the answer of the running lictor.
const ownTimeout = 3 * time.Second

// own returns the listeners of the running lictor. Without one it returns nil. If a lictor cannot be asked although its
// address is given, own adds a note.
func (c *validateCommand) own(diags *config.Diagnostics) (own []daemon.Listener) {
	ctx, cancel := context.WithTimeout(context.Background(), ownTimeout)
	defer cancel()
	var all admin.ServicesAnswer
	client, _, err := c.connect(ctx)
	if err == nil {
		defer client.Close()
		err = client.Get(ctx, "/v1/services", &all)
	}
	var nobody *errNobody
	switch {
	case err == nil:
	case !errors.As(err, &nobody):
		c.note(diags, "Running lictor not asked", err.Error())
	case c.address != "":
		c.note(diags, "Running lictor not asked", "none answers at "+strings.Join(nobody.tried, "; "))
	}
	for i := range all.Services {
		var l daemon.Listener
		if l.Protocol.UnmarshalText([]byte(all.Services[i].Protocol)) != nil {
			continue
		}
		for _, text := range all.Services[i].Listeners {
			if l.At.UnmarshalText([]byte(text)) == nil {
				own = append(own, l)
			}
		}
	}
	return own
}

// ask adds the filters that Consul refuses to diags. If Consul cannot be asked, it adds a note.
func (c *validateCommand) ask(cfg *config.Config, diags *config.Diagnostics) {
	refused, err := daemon.CheckFilters(context.Background(), cfg)
	diags.Extend(refused)
	if err != nil {
		c.note(diags, "Filters not checked", err.Error())
	}
}

// note reports something that is not a problem of the configuration: as a warning in JSON, otherwise as a line on
// stderr.
func (c *validateCommand) note(diags *config.Diagnostics, summary, detail string) {
	if c.json {
		diags.Extend(hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: summary, Detail: detail}})
		return
	}
	fmt.Fprintf(c.err, "note: %s: %s\n", strings.ToLower(summary[:1])+summary[1:], visible.Lines(detail))
}

// maxNamed is the largest number of addresses in a note.
const maxNamed = 3

// noteAddresses reports the listen addresses that are in use. foreign means that the running lictor does not use them.
func (c *validateCommand) noteAddresses(inUse []string, foreign bool, diags *config.Diagnostics) {
	if len(inUse) == 0 {
		return
	}
	named := strings.Join(inUse[:min(len(inUse), maxNamed)], ", ")
	if more := len(inUse) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	hint := "; that is right if a lictor runs with this configuration"
	if foreign {
		hint = "; the running lictor does not use them"
	}
	c.note(diags, "Addresses in use", named+hint)
}

// liveTimeout is the timeout of all checks of validate -live together.
const liveTimeout = 30 * time.Second

// live compares the configuration with Consul and with this host. It adds problems to diags and prints the instances of
// each service.
func (c *validateCommand) live(cfg *config.Config, own []daemon.Listener, diags *config.Diagnostics) {
	why := fmt.Errorf("no answer within %v", liveTimeout)
	ctx, cancel := context.WithTimeoutCause(context.Background(), liveTimeout, why)
	defer cancel()
	addresses, unusable := daemon.LookForConsul(ctx, cfg)
	diags.Extend(unusable)
	all, problems := daemon.Look(ctx, cfg, own)
	diags.Extend(problems)
	paths, problems := daemon.LookAtKernelPath(cfg)
	diags.Extend(problems)
	if c.json {
		return
	}
	for _, line := range addresses {
		fmt.Fprintln(c.out, visible.Text(line))
	}
	for i := range all {
		for _, line := range all[i].Describe() {
			fmt.Fprintln(c.out, visible.Text(line))
		}
	}
	for _, line := range paths {
		fmt.Fprintln(c.out, visible.Text(line))
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
		_, err = fmt.Fprintf(c.out, "ok: %s, %s, %s\n", services, listeners, config.Plural(diags.Files(), "file"))
	}
	if err != nil {
		fmt.Fprintf(c.err, "lictor validate: %v\n", err)
	}
	if err != nil || diags.HasErrors() {
		return exitFailed
	}
	return exitOK
}
