package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// reloadTime is the timeout of a reload.
const reloadTime = 30 * time.Second

type reloadCommand struct{ asker }

func newReloadCommand(c console) *reloadCommand {
	return &reloadCommand{asker{console: c, name: "reload"}}
}

func (c *reloadCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("reload", flag.ContinueOnError)
	c.askFlags(f)
	return f
}

func (c *reloadCommand) Synopsis() string {
	return "Make the running lictor read its configuration again"
}
func (c *reloadCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *reloadCommand) AutocompleteArgs() predictor   { return nil }

func (c *reloadCommand) Help() string {
	return `Usage: lictor reload [options]

  Makes the running lictor read its configuration again and apply the
  differences, and waits until that is done. An invalid configuration changes
  nothing, and its problems are printed. Changed arguments that need a restart
  are listed as pending.

Options:

` + askOptions + `  -json               Print JSON: {"time": ..., "ok": ..., "summary": ...}.

Exit codes:

  0    The new configuration is in force.
  1    The old configuration is still in force.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor validate /etc/lictor && lictor reload
`
}

func (c *reloadCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("unexpected argument %q: the running lictor knows its paths", rest[0])
	}
	if err != nil {
		return c.usage("reload", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadTime)
	defer cancel()
	client, _, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	var outcome admin.Reload
	if err := client.Post(ctx, "/v1/reload", nil, &outcome); err != nil {
		return c.fail(err)
	}
	if c.json {
		err = c.print(outcome)
	} else {
		_, err = fmt.Fprintf(c.out, "reloaded: %s\n", visible.Text(outcome.Summary))
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOK
}
