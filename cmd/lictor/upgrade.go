package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/posener/complete"

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
	return "Have a new process take its place, without a dropped connection"
}
func (c *upgradeCommand) AutocompleteFlags() complete.Flags    { return askCompletions(c.flags()) }
func (c *upgradeCommand) AutocompleteArgs() complete.Predictor { return complete.PredictNothing }

func (c *upgradeCommand) Help() string {
	return `Usage: lictor upgrade [options]

  Has the running lictor start the program that is at its own path now, with
  its own arguments, and leave its place to that: a new version, or the same
  with a configuration whose changes take a restart. Listeners, UDP sessions,
  endpoints and drains go over; no client is refused. TCP connections go on in
  the former process, which ends with the last of them.

  If the new process does not come up, because the configuration is bad or the
  program does not start, the running lictor goes on as if nothing had
  happened; the reason is printed.

  Exits with 0 if the new process serves, with 1 if the former one still does,
  and with 3 if no lictor answers.

Options:

` + askOptions + `  -json               Print JSON: {"pid": ..., "version": ...}.

Examples:

    $ install -m 755 lictor-0.2.0 /usr/local/bin/lictor && lictor upgrade
`
}

func (c *upgradeCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%q is one argument too many: the running lictor knows its program and paths", rest[0])
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
		_, err = fmt.Fprintf(c.out, "upgraded: process %d, lictor %s, serves instead of process %d, lictor %s\n",
			next.PID, visible.Text(next.Version), before.PID, visible.Text(before.Version))
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOK
}
