package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os/signal"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type eventsCommand struct {
	asker
	follow bool
	last   int
}

func newEventsCommand(c console) *eventsCommand {
	return &eventsCommand{asker: asker{console: c, name: "events"}}
}

func (c *eventsCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("events", flag.ContinueOnError)
	c.askFlags(f)
	f.BoolVar(&c.follow, "f", false, "")
	f.IntVar(&c.last, "n", 50, "")
	return f
}

func (c *eventsCommand) Synopsis() string              { return "Show past events, and new ones as they happen" }
func (c *eventsCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *eventsCommand) AutocompleteArgs() predictor   { return c.names(c.flags, serviceNames) }

func (c *eventsCommand) Help() string {
	return `Usage: lictor events [options] [SERVICE]

  Shows the latest events of the running lictor, one a line: endpoints that
  joined or left (with the check that caused it), or were held, ejected or
  restored; sources that failed or recovered; actions of operators. With
  SERVICE, shows only events of that service.

Options:

` + askOptions + `  -f                  Follow: print new events until Ctrl-C.
  -n NUMBER           Begin with the last NUMBER events. Default: 50.
  -json               Print one JSON object a line.

Exit codes:

  0    The events were printed.
  1    Lictor has ended or refuses to answer, or there is no such service.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor events -n 10 web
    $ lictor events -f
    $ lictor events -f -n 0 -json | jq -r 'select(.kind == "left") | .endpoint'
`
}

func (c *eventsCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 1:
		err = fmt.Errorf("unexpected argument %q", rest[1])
	case c.last < 0:
		err = fmt.Errorf("-n %d is negative", c.last)
	}
	if err != nil {
		return c.usage("events", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, _, err := c.connect(ctx)
	if err == nil {
		defer client.Close()
		err = c.show(ctx, client, rest)
	}
	if err != nil && ctx.Err() == nil {
		return c.fail(err)
	}
	return exitOK
}

// show prints the last events and, with -f, new events as they happen.
func (c *eventsCommand) show(ctx context.Context, client *admin.Client, rest []string) error {
	of := ""
	if len(rest) == 1 {
		if _, err := service(ctx, client, rest[0]); err != nil {
			return err
		}
		of = "&service=" + url.QueryEscape(rest[0])
	}
	var answer admin.EventsAnswer
	if err := client.Get(ctx, fmt.Sprintf("/v1/events?limit=%d%s", c.last, of), &answer); err != nil {
		return err
	}
	for {
		if err := c.write(answer.Events); err != nil || !c.follow {
			return err
		}
		next := admin.EventsAnswer{}
		if err := client.Get(ctx, fmt.Sprintf("/v1/events?wait=50&after=%d%s", answer.Next, of), &next); err != nil {
			return endedOr(err)
		}
		answer = next
	}
}

func (c *eventsCommand) write(events []admin.Event) error {
	if !c.json {
		return writeEvents(c.out, "", events)
	}
	enc := json.NewEncoder(visible.NewJSONWriter(c.out))
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func writeEvents(w io.Writer, indent string, events []admin.Event) error {
	for _, e := range events {
		service := e.Service
		if service == "" {
			service = "-"
		}
		if _, err := fmt.Fprintf(w, "%s%s  %-9s  %s  %s\n", indent, e.Time.Local().Format(time.DateTime),
			visible.Text(string(e.Kind)), visible.Text(service), visible.Text(e.Text)); err != nil {
			return err
		}
	}
	return nil
}
