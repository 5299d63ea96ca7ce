package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// explainEvents is the number of events that explain shows.
const explainEvents = 20

type explainCommand struct{ asker }

func newExplainCommand(c console) *explainCommand {
	return &explainCommand{asker{console: c, name: "explain"}}
}

func (c *explainCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("explain", flag.ContinueOnError)
	c.askFlags(f)
	return f
}

func (c *explainCommand) Synopsis() string {
	return "Show why each endpoint of a service gets clients or not"
}
func (c *explainCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *explainCommand) AutocompleteArgs() predictor   { return c.names(c.flags, serviceNames) }

func (c *explainCommand) Help() string {
	return `Usage: lictor explain [options] SERVICE

  Shows for each endpoint of a service whether the running lictor sends clients
  to it, why, since when and, if known, until when. Then it lists the latest
  events of the service. Instances that the service's tags or filter leave out
  are shown too: Consul is asked for them.

Options:

` + askOptions + `  -json               Print JSON: {"service": ..., "events": [...]}.

Exit codes:

  0    At least one endpoint gets clients.
  1    No endpoint gets clients, or there is no such service.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor explain web
    $ lictor explain -json web | jq '.service.endpoints[] | select(.state == "out")'
`
}

func (c *explainCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) == 0:
		err = fmt.Errorf("no SERVICE given; \"lictor status\" lists the services")
	case len(rest) > 1:
		err = fmt.Errorf("unexpected argument %q", rest[1])
	}
	if err != nil {
		return c.usage("explain", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, _, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	s, err := service(ctx, client, rest[0])
	if err != nil {
		return c.fail(err)
	}
	problems, excluded := addExcluded(ctx, client, s)
	var events admin.EventsAnswer
	if err := client.Get(ctx, fmt.Sprintf("/v1/events?limit=%d&service=%s", explainEvents, url.QueryEscape(s.Name)),
		&events); err != nil {
		return c.fail(err)
	}
	if c.json {
		err = c.print(struct {
			Service  *admin.Service `json:"service"`
			Problems []string       `json:"problems,omitempty"`
			Events   []admin.Event  `json:"events"`
		}{s, problems, events.Events})
	} else {
		err = writeExplanation(c.out, time.Now(), s, problems, excluded, events.Events)
	}
	if err != nil {
		return c.fail(err)
	}
	if s.In() == 0 {
		return exitFailed
	}
	return exitOK
}

// writeInMesh says with which identity a service dials in the mesh, or with which it is served there, and to which
// clients.
func writeInMesh(w io.Writer, now time.Time, s *admin.Service) {
	does := "dials in the mesh"
	if s.Exposed != nil {
		does = "is served to the mesh"
	}
	if i := s.Identity; i != nil {
		fmt.Fprintf(w, "%s as %s\n", does, visible.Text(identityText(now, i)))
	}
	if x := s.Exposed; x != nil {
		if x.Error != "" {
			fmt.Fprintln(w, visible.Text(x.Error))
		}
		fmt.Fprintf(w, "refused because of their identity: %s; cut off when intentions changed: %s\n",
			config.Plural(int(x.Denied), "client"), config.Plural(int(x.Ended), "connection"))
		for _, c := range x.Clients {
			fmt.Fprintf(w, "connected: %s, %s\n", visible.Text(c.Identity), config.Plural(c.Connections, "connection"))
		}
		if x.ClientsShort {
			fmt.Fprintln(w, "connected: more identities")
		}
	}
}

// addExcluded adds the instances to s that its tags or filter leave out. If s has no endpoints, addExcluded returns the
// reasons. If Consul's answer cannot be fetched, addExcluded returns an error, and s keeps its other endpoints.
func addExcluded(ctx context.Context, client *admin.Client, s *admin.Service) (problems []string, err error) {
	var answer admin.ExcludedAnswer
	err = client.Get(ctx, servicePath(s.Name)+"/excluded", &answer)
	for _, e := range answer.Endpoints {
		if !slices.ContainsFunc(s.Endpoints, func(known admin.Endpoint) bool { return known.ID == e.ID }) {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	slices.SortFunc(s.Endpoints, func(a, b admin.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return answer.Problems, err
}

func writeExplanation(
	out io.Writer, now time.Time, s *admin.Service, problems []string, excluded error, events []admin.Event,
) error {
	w := bufio.NewWriter(out) // remembers the first error until Flush
	in := s.In()
	fmt.Fprintf(w, "%s: %d of %s %s clients; from %s\n", visible.Text(s.Name), in,
		config.Plural(len(s.Endpoints), "known endpoint"), verb(in), visible.Text(s.Source))
	fmt.Fprintf(w, "%s\n", visible.Text(note(now, s)))
	writeInMesh(w, now, s)
	if s.Path.Asks() {
		fmt.Fprintf(w, "path: %s\n", visible.Text(s.Path.Text()))
	}
	if s.Kernel != nil {
		fmt.Fprintf(w, "kernel path: %s\n", kernelText(s.Kernel))
	}
	if s.Near != nil {
		fmt.Fprintln(w, visible.Text(s.Near.Text()))
	}
	for _, problem := range problems {
		fmt.Fprintln(w, visible.Text(problem))
	}
	for i, source := range s.Sources {
		use := "not in use"
		if source.Active {
			use = "in use"
		}
		if source.Detail != "" {
			use += "; " + source.Detail
		}
		fmt.Fprintf(w, "source %d, %s: %s\n", i+1, visible.Text(source.Name), visible.Text(use))
	}
	if excluded != nil {
		fmt.Fprintf(w, "instances that the tags or filter leave out are not known: %s\n",
			visible.Text(excluded.Error()))
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		fmt.Fprintf(w, "\n%-3s  %s at %s, weight %d\n",
			visible.Text(strings.ToUpper(e.State)), visible.Text(e.ID), visible.Text(e.Address), e.Weight)
		fmt.Fprintf(w, "     %s\n", visible.Text(why(now, e)))
		writeUnserved(w, now, e)
		if e.Name != nil {
			fmt.Fprintf(w, "     addresses: %s\n", visible.Text(nameText(now, e.Name)))
		}
		if e.ServerName != "" {
			fmt.Fprintf(w, "     server name: %s\n", visible.Text(e.ServerName))
		} else if e.NoServerName != "" {
			fmt.Fprintf(w, "     server name: none, %s\n", visible.Text(e.NoServerName))
		}
		if e.Identity != "" {
			fmt.Fprintf(w, "     identity: %s\n", visible.Text(e.Identity))
		}
		if s.Near != nil {
			fmt.Fprintf(w, "     zone: %s\n", visible.Text(zoneText(e)))
		}
		if len(e.Tags) > 0 {
			fmt.Fprintf(w, "     tags: %s\n", visible.Text(strings.Join(e.Tags, ", ")))
		}
	}
	if len(events) > 0 {
		fmt.Fprint(w, "\nlatest events:\n")
		_ = writeEvents(w, "  ", events)
	}
	return w.Flush()
}

// writeUnserved writes which connections an endpoint has not served since it last answered one.
func writeUnserved(w io.Writer, now time.Time, e *admin.Endpoint) {
	times := func(u *admin.Unserved) string {
		return fmt.Sprintf("%s in %s, the last one %s ago", config.Plural(int(u.Connections), "connection"),
			brief(now.Sub(u.Since)), brief(now.Sub(u.Last)))
	}
	if d := e.Denied; d != nil {
		fmt.Fprintf(w, "     denied by the destination: %s: %s\n", times(d), visible.Text(d.Why))
	}
	if u := e.Unanswered; u != nil {
		fmt.Fprintf(w, "     closed before it answered: %s; Envoy does so if an intention denies,\n"+
			"     or if it cannot reach its own service\n", times(u))
	}
}

// zoneText returns the zone of an endpoint, and whether it is near.
func zoneText(e *admin.Endpoint) string {
	switch {
	case e.Near:
		return e.Zone + ", near"
	case e.Zone == "":
		return "not known"
	}
	return e.Zone
}

// nameText returns the addresses of a host name. If the last lookup failed, the text says how old they are and why it
// failed.
func nameText(now time.Time, n *admin.HostName) string {
	text := strings.Join(n.Addresses, ", ")
	if n.Problem == "" {
		return text
	}
	when := "by an earlier process"
	if n.FoundAt != nil {
		when = brief(now.Sub(*n.FoundAt)) + " ago"
	}
	return text + ", found " + when + "; the last lookup failed: " + n.Problem
}

func verb(n int) string {
	if n == 1 {
		return "gets"
	}
	return "get"
}
