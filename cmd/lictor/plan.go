package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/config"
)

type planCommand struct {
	console
	paths, against pathList
}

func newPlanCommand(c console) *planCommand { return &planCommand{console: c} }

func (c *planCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("plan", flag.ContinueOnError)
	f.Var(&c.paths, "config", "")
	f.Var(&c.against, "against", "")
	return f
}

func (c *planCommand) Synopsis() string { return "Show what a reload would change, without doing it" }

func (c *planCommand) AutocompleteFlags() complete.Flags {
	return completeFlags(c.flags(), complete.Flags{"-config": configurations(), "-against": configurations()})
}

func (c *planCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

func (c *planCommand) Help() string {
	return `Usage: lictor plan -config NEW -against OLD

  Prints what would change if a lictor that runs with the configuration OLD
  read NEW: services that would be added (+), removed (-) and changed (~), with
  their arguments, defaults included, and arguments that take a restart. Nothing
  is changed, and Consul is not asked.

  Exits with 0 if both configurations are valid, and with 1 if one is not.

Options:

  -config PATH     A file, or a directory of *.hcl files. May be repeated.
  -against PATH    The same, of the configuration to compare with.

Examples:

    $ lictor plan -config new.hcl -against /etc/lictor
    $ git show HEAD:lictor.hcl > /tmp/old.hcl
    $ lictor plan -config lictor.hcl -against /tmp/old.hcl
`
}

func (c *planCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("%q is one argument too many", rest[0])
	case len(c.paths) == 0:
		err = errors.New("no configuration given: -config PATH names the new one")
	case len(c.against) == 0:
		err = errors.New("nothing to compare with: -against PATH names the configuration that is in force")
	}
	if err != nil {
		return c.usage("plan", err)
	}
	old, okOld := c.read(c.against)
	next, okNext := c.read(c.paths)
	if !okOld || !okNext {
		return exitFailed
	}
	changes := compare(old, next)
	if changes.empty() {
		_, err = fmt.Fprintln(c.out, "nothing would change")
	} else if err = changes.write(c.out); err == nil {
		_, err = fmt.Fprintf(c.out, "\n%s\n", changes.summary())
	}
	if err != nil {
		fmt.Fprintf(c.err, "lictor plan: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func (c *planCommand) read(paths []string) (*config.Config, bool) {
	cfg, diags := config.Load(paths, config.Options{})
	err := diags.WriteText(c.err, isTerminal(c.err))
	return cfg, cfg != nil && err == nil
}
