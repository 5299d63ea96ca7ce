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
	"time"

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
func (c *connectionsCommand) AutocompleteFlags() predictors {
	all := askCompletions(c.flags())
	all["-endpoint"] = c.names(c.flags, endpointNames)
	return all
}

func (c *connectionsCommand) AutocompleteArgs() predictor {
	return c.names(c.flags, serviceNames)
}

func (c *connectionsCommand) Help() string {
	return `Usage: lictor connections [options] [SERVICE]

  Lists the open TCP connections and UDP sessions of the running lictor: client,
  endpoint, age, time since the last byte (IDLE), and bytes from the client (UP)
  and to the client (DOWN). The oldest come first. With SERVICE, lists only that
  service's. If clients speak TLS, the last column has the subject of the
  client's certificate, or else the name that the client asked for, or else the
  version of TLS.

  If clients on this host use the kernel path, PATH says which connections are
  on it, and PROGRAM has the program that connected and its process ID. UP and
  DOWN of UDP on the kernel path are not known.

  If the terminal or $COLUMNS is too narrow, columns are left out and long names
  are shortened.

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
	if err == nil && len(all.Connections) == 0 {
		err = c.check(ctx, client, name)
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

// check returns an error if there is no service of that name, or if no service has the endpoint that -endpoint names.
// An empty name means any service. An endpoint that has left has no connections either, and counts as unknown.
func (c *connectionsCommand) check(ctx context.Context, client *admin.Client, name string) error {
	var services []admin.Service
	if name != "" {
		s, err := service(ctx, client, name)
		if err != nil {
			return err
		}
		services = append(services, *s)
	}
	if c.endpoint == "" {
		return nil
	}
	if name == "" {
		var all admin.ServicesAnswer
		if err := client.Get(ctx, "/v1/services", &all); err != nil {
			return err
		}
		services = all.Services
	}
	in, known := having(services, c.endpoint)
	if len(in) > 0 {
		return nil
	}
	where := ""
	if name != "" {
		where = fmt.Sprintf(" of service %q", name)
	}
	return fmt.Errorf("-endpoint: there is no endpoint %q%s%s", c.endpoint, where, suggestion(c.endpoint, known))
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
	secure := slices.ContainsFunc(all, func(c admin.Connection) bool { return c.TLS != nil })
	kernel := slices.ContainsFunc(all, onKernelPath)
	t := &table{gap: 2, columns: []column{
		{title: "SERVICE", cut: middle}, {title: "PROTO", drop: 3}, {title: "CLIENT"}, {title: "ENDPOINT", cut: middle},
		{title: "ADDRESS", drop: 1}, {title: "STATE", drop: 2}, {title: "AGE", align: right},
		{title: "IDLE", align: right}, {title: "UP", align: right}, {title: "DOWN", align: right},
	}}
	if kernel {
		t.columns = append(t.columns, column{title: "PATH", drop: 5}, column{title: "PROGRAM", cut: end, drop: 4})
	}
	if secure {
		t.columns = append(t.columns, column{title: "TLS", cut: middle, drop: 4})
	}
	for i := range all {
		c := &all[i]
		cells := []string{visible.Text(c.Service), visible.Text(c.Protocol), visible.Text(c.Client),
			visible.Text(orDash(c.Endpoint)), visible.Text(orDash(c.Address)),
			visible.Text(strings.ReplaceAll(c.State, "_", "-")), brief(seconds(c.Age))}
		cells = append(cells, trafficOf(c)...)
		if kernel {
			cells = append(cells, pathOf(c), visible.Text(programOf(c)))
		}
		if secure {
			cells = append(cells, visible.Text(peerName(c.TLS)))
		}
		t.add(cells...)
	}
	return t.write(w)
}

func onKernelPath(c admin.Connection) bool { return c.Path == admin.PathKernel }

// trafficOf returns the cells IDLE, UP and DOWN. Of UDP on the kernel path the bytes are not known, and if the socket
// is connected, the idle time is not known either.
func trafficOf(c *admin.Connection) []string {
	idle, up, down := brief(seconds(c.Idle)), size(float64(c.BytesUp)), size(float64(c.BytesDown))
	if onKernelPath(*c) && c.Protocol == "udp" {
		if up, down = "-", "-"; c.Idle == 0 {
			idle = "-"
		}
	}
	return []string{idle, up, down}
}

func pathOf(c *admin.Connection) string {
	if onKernelPath(*c) {
		return admin.PathKernel
	}
	return "lictor"
}

// programOf names the program that has connected, if that is known.
func programOf(c *admin.Connection) string {
	switch {
	case c.PID == 0:
		return "-"
	case c.Program == "":
		return fmt.Sprint(c.PID)
	}
	return fmt.Sprintf("%s (%d)", c.Program, c.PID)
}

// peerName describes a client that speaks TLS in a word or two: its SPIFFE ID, or else the subject of its certificate,
// or else the name that it asked for, or else the version.
func peerName(t *admin.TLS) string {
	switch {
	case t == nil:
		return "-"
	case t.Identity != "":
		return t.Identity
	case t.Subject != "":
		return t.Subject
	case t.SNI != "":
		return t.SNI
	}
	return t.Version
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
