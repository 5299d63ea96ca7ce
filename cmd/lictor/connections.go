package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/posener/complete"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type connectionsCommand struct {
	asker
	endpoint string
	most     int
}

func newConnectionsCommand(c console) *connectionsCommand {
	return &connectionsCommand{asker: asker{console: c, name: "connections"}}
}

func (c *connectionsCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("connections", flag.ContinueOnError)
	c.askFlags(f)
	f.StringVar(&c.endpoint, "endpoint", "", "")
	f.IntVar(&c.most, "n", 0, "")
	return f
}

func (c *connectionsCommand) Synopsis() string { return "List connections and sessions" }
func (c *connectionsCommand) AutocompleteFlags() complete.Flags {
	all := askCompletions(c.flags())
	all["-endpoint"] = c.names(c.flags, endpointNames)
	return all
}

func (c *connectionsCommand) AutocompleteArgs() complete.Predictor {
	return c.names(c.flags, serviceNames)
}

func (c *connectionsCommand) Help() string {
	return `Usage: lictor connections [options] [SERVICE]

  Lists the open TCP connections and UDP sessions of the running lictor: client,
  endpoint, age, time since the last byte (IDLE), and bytes from the client (UP)
  and to the client (DOWN). The oldest come first. With SERVICE, lists only that
  service's.

Options:

` + askOptions + `  -endpoint ENDPOINT  List only those to this endpoint, given by ID or address.
  -n NUMBER           List at most NUMBER. Default: all.
  -json               Print JSON: {"now": ..., "connections": [...]}.
                      docs/api.md describes the fields.

Exit codes:

  0    The connections were printed, even if there are none.
  1    Lictor refuses to answer, or there is no such service or endpoint.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor connections web
    $ lictor connections -endpoint n1/web-2
    $ lictor connections -json | jq '.connections[] | select(.idle_seconds > 600) | .client'
`
}

func (c *connectionsCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 1:
		err = fmt.Errorf("unexpected argument %q", rest[1])
	case c.most < 0:
		err = fmt.Errorf("-n %d is negative", c.most)
	}
	if err != nil {
		return c.usage("connections", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, _, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	name := ""
	if len(rest) == 1 {
		name = rest[0]
	}
	all, err := c.collect(ctx, client, name)
	if err == nil && name != "" && len(all.Connections) == 0 {
		_, err = service(ctx, client, name) // the service may not exist
	}
	switch {
	case err != nil:
	case c.json:
		err = c.print(all)
	default:
		err = writeConnections(c.out, all.Connections)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOK
}

// collect returns the connections, the oldest first. It asks for all pages, because each page may have the oldest
// connection.
func (c *connectionsCommand) collect(
	ctx context.Context, client *admin.Client, name string,
) (*admin.ConnectionsAnswer, error) {
	all := &admin.ConnectionsAnswer{Connections: []admin.Connection{}}
	query := url.Values{"limit": {"1000"}}
	if name != "" {
		query.Set("service", name)
	}
	if c.endpoint != "" {
		query.Set("endpoint", c.endpoint)
	}
	for first := true; first || query.Get("after") != ""; first = false {
		pageCtx, cancel := context.WithTimeout(ctx, answerTime)
		var page admin.ConnectionsAnswer
		err := client.Get(pageCtx, "/v1/connections?"+query.Encode(), &page)
		cancel()
		if err != nil {
			return nil, err
		}
		all.Now = page.Now
		all.Connections = append(all.Connections, page.Connections...)
		query.Set("after", page.Next)
	}
	slices.SortStableFunc(all.Connections, func(a, b admin.Connection) int { return cmp.Compare(b.Age, a.Age) })
	if c.most > 0 {
		all.Connections = all.Connections[:min(len(all.Connections), c.most)]
	}
	return all, nil
}

func writeConnections(w io.Writer, all []admin.Connection) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no connections")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tPROTO\tCLIENT\tENDPOINT\tADDRESS\tSTATE\tAGE\tIDLE\tUP\tDOWN")
	for i := range all {
		c := &all[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", visible.Text(c.Service),
			visible.Text(c.Protocol), visible.Text(c.Client),
			visible.Text(orDash(c.Endpoint)), visible.Text(orDash(c.Address)),
			visible.Text(strings.ReplaceAll(c.State, "_", "-")), brief(seconds(c.Age)), brief(seconds(c.Idle)),
			size(float64(c.BytesUp)), size(float64(c.BytesDown)))
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
