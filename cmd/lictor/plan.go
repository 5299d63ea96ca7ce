package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type planCommand struct {
	asker
	paths, against pathList
}

func newPlanCommand(c console) *planCommand {
	return &planCommand{asker: asker{console: c, name: "plan"}}
}

func (c *planCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("plan", flag.ContinueOnError)
	f.Var(&c.paths, "config", "")
	f.Var(&c.against, "against", "")
	c.addressFlags(f)
	return f
}

func (c *planCommand) Synopsis() string { return "Show what a reload would change" }

func (c *planCommand) AutocompleteFlags() predictors {
	return completeFlags(c.flags(), predictors{"-config": configurations(), "-against": configurations(),
		"-token-file": files("*")})
}

func (c *planCommand) AutocompleteArgs() predictor { return nil }

func (c *planCommand) Help() string {
	return `Usage: lictor plan -config NEW [options]

  Shows what would change if the running lictor read the configuration NEW:
  services that would be added (+), removed (-) and changed (~), with their
  changed arguments. Marks arguments that need a restart. Changes nothing, and
  does not ask Consul. Says which services the configuration allows on the
  kernel path. With -against OLD, plan compares NEW with the
  configuration OLD, and needs no running lictor.

  A running lictor does not show its secrets. Only with -against does plan see
  that a secret has changed.

Options:

  -config PATH        A file, or a directory of *.hcl files. May be repeated.
  -against PATH       The configuration to compare with: a file or a directory.
                      May be repeated.
` + askOptions + `
Exit codes:

  0    The configurations are valid.
  1    A configuration is invalid, or the running lictor refuses to answer.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor plan -config /etc/lictor && lictor reload
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
		err = unexpectedPath(rest[0])
	case len(c.paths) == 0:
		err = errors.New("no configuration given: name the new one with -config PATH")
	}
	if err != nil {
		return c.usage("plan", err)
	}
	next, ok := c.read(c.paths)
	var old *config.Config
	if len(c.against) > 0 {
		var okOld bool
		old, okOld = c.read(c.against)
		ok = ok && okOld
	}
	if !ok {
		return exitFailed
	}
	if old == nil {
		if old, err = c.running(next); err != nil {
			var nobody *errNobody
			if errors.As(err, &nobody) {
				err = fmt.Errorf("%w\nOr name the configuration to compare with: -against PATH", err)
			}
			return c.fail(err)
		}
	}
	changes := config.Compare(old, next)
	if changes.Empty() {
		_, err = fmt.Fprintln(c.out, "nothing would change")
	} else if err = changes.Write(c.out); err == nil {
		_, err = fmt.Fprintf(c.out, "\n%s\n", visible.Text(changes.Summary()))
	}
	for _, line := range daemon.KernelPaths(next) {
		if err == nil {
			_, err = fmt.Fprintln(c.out, visible.Text(line))
		}
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

// running returns the configuration of the running lictor. It takes the secrets from next, because a running lictor
// does not show them. It also sets in next what the running lictor's command line overrides, because that stays after a
// reload.
func (c *planCommand) running(next *config.Config) (*config.Config, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, status, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var text json.RawMessage
	if err := client.Get(ctx, "/v1/config", &text); err != nil {
		return nil, err
	}
	cfg := &config.Config{}
	if err := json.Unmarshal(text, cfg); err != nil {
		return nil, fmt.Errorf("the configuration of the running lictor %s cannot be read: %w", status.Version, err)
	}
	if slices.Contains(status.CommandLine, "log_level") {
		next.LogLevel = cfg.LogLevel
	}
	if slices.Contains(status.CommandLine, "log_json") {
		next.LogJSON = cfg.LogJSON
	}
	cfg.AdoptSecrets(next)
	if own := newBuild().Version; status.Version != own {
		fmt.Fprintf(c.err, "lictor plan: the running lictor has version %s, this one %s: "+
			"arguments that only one of them knows show as changes\n", visible.Text(status.Version), own)
	}
	return cfg, nil
}
