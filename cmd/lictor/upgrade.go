package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/daemon"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type upgradeCommand struct{ asker }

func newUpgradeCommand(c console) *upgradeCommand {
	return &upgradeCommand{asker{console: c, name: "upgrade"}}
}

func (c *upgradeCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("upgrade", flag.ContinueOnError)
	c.askFlags(f)
	return f
}

func (c *upgradeCommand) Synopsis() string {
	return "Replace the running process, without dropping connections"
}
func (c *upgradeCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *upgradeCommand) AutocompleteArgs() predictor   { return nil }

func (c *upgradeCommand) Help() string {
	return `Usage: lictor upgrade [options]

  Makes the running lictor start a new process and hand over to it. The new
  process runs the program that is now at the same path, with the same
  arguments. Use it for a new version, or for changed arguments that need a
  restart. The new process takes over listeners, UDP sessions, endpoints and
  drains; no client is refused. Open TCP connections stay in the old process,
  which ends with the last of them.

  If the new process does not start, or its configuration is invalid, the
  running lictor goes on unchanged, and the reason is printed.

Options:

` + askOptions + `  -json               Print JSON: {"pid": ..., "version": ...}.

Exit codes:

  0    The new process serves.
  1    The old process still serves.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ install -m 755 lictor-0.2.0 /usr/local/bin/lictor && lictor upgrade
`
}

func (c *upgradeCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("unexpected argument %q: the running lictor knows its program and paths", rest[0])
	}
	if err != nil {
		return c.usage("upgrade", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), daemon.UpgradeTimeout)
	defer cancel()
	client, before, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	var next admin.Upgrade
	if err := client.Post(ctx, "/v1/upgrade", nil, &next); err != nil {
		return c.fail(err)
	}
	if c.json {
		err = c.print(next)
	} else {
		_, err = fmt.Fprintf(c.out, "upgraded: process %d (lictor %s) has replaced process %d (lictor %s)\n",
			next.PID, visible.Text(next.Version), before.PID, visible.Text(before.Version))
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOK
}
