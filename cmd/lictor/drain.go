package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// A drainCommand is "lictor drain".
type drainCommand struct {
	asker
	lasts  time.Duration
	reason string
	force  bool
}

func newDrainCommand(c console) *drainCommand {
	return &drainCommand{asker: asker{console: c, name: "drain"}}
}

func (c *drainCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("drain", flag.ContinueOnError)
	c.askFlags(f)
	f.DurationVar(&c.lasts, "for", 0, "")
	f.StringVar(&c.reason, "reason", "", "")
	f.BoolVar(&c.force, "force", false, "")
	return f
}

func (c *drainCommand) Synopsis() string              { return "Send no new clients to an endpoint" }
func (c *drainCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *drainCommand) AutocompleteArgs() predictor {
	return c.names(c.flags, namesToDrain(admin.ReasonDrained, false))
}

func (c *drainCommand) Help() string {
	return `Usage: lictor drain [options] [SERVICE] ENDPOINT

  Makes the running lictor send no new clients to an endpoint. TCP connections
  of the endpoint continue, and UDP sessions move to other endpoints. Only this
  lictor does so; others and Consul do not know of the drain. The drain ends
  after -for, with "lictor undrain", or when lictor restarts. An upgrade keeps
  it.

  ENDPOINT is an ID or an address, as "lictor status SERVICE" shows. SERVICE is
  necessary if several services have that endpoint. The log and the events show
  the user and the reason.

  The last endpoint that gets clients is not drained without -force.

Options:

` + askOptions + `  -for TIME           End the drain after this time, such as 10m.
  -reason TEXT        Why the endpoint is drained, in one line.
  -force              Drain the endpoint even if no other one gets clients.
  -json               Print JSON: {"ok": true, "drained_by": ..., "until": ...}.

Exit codes:

  0    The endpoint is drained.
  1    The endpoint is the last that gets clients, or there is no such endpoint.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor drain -for 10m -reason "new disk" n1/web-2
    $ lictor drain web 10.0.0.7:8080
`
}

func (c *drainCommand) Run(args []string) int {
	given := false
	flags := c.flags()
	rest, err := parse(flags, args)
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "for" })
	if err == nil && given && c.lasts <= 0 {
		err = fmt.Errorf("-for %v is not above zero", c.lasts)
	}
	request := admin.DrainRequest{Reason: c.reason, Force: c.force}
	if c.lasts > 0 {
		request.For = c.lasts.String()
	}
	return c.order(rest, err, "drain", request, func(s string, e *admin.Endpoint, a *admin.DrainAnswer) string {
		text := fmt.Sprintf("drained %s of service %q", e.ID, s)
		if a.Until != nil {
			text += " until " + a.Until.Local().Format(time.DateTime)
		}
		return text + "; its connections continue"
	})
}

// An undrainCommand is "lictor undrain".
type undrainCommand struct {
	asker
	reason string
}

func newUndrainCommand(c console) *undrainCommand {
	return &undrainCommand{asker: asker{console: c, name: "undrain"}}
}

func (c *undrainCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("undrain", flag.ContinueOnError)
	c.askFlags(f)
	f.StringVar(&c.reason, "reason", "", "")
	return f
}

func (c *undrainCommand) Synopsis() string              { return "Send new clients to a drained endpoint again" }
func (c *undrainCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *undrainCommand) AutocompleteArgs() predictor {
	return c.names(c.flags, namesToDrain(admin.ReasonDrained, true))
}

func (c *undrainCommand) Help() string {
	return `Usage: lictor undrain [options] [SERVICE] ENDPOINT

  Ends a drain: the running lictor sends new clients to the endpoint again, if
  nothing else speaks against it. ENDPOINT is an ID or an address. SERVICE is
  necessary if several services have that endpoint.

Options:

` + askOptions + `  -reason TEXT        Why the drain ends, in one line.
  -json               Print JSON: {"ok": true}.

Exit codes:

  0    The endpoint is not drained any more.
  1    There is no such endpoint, or it is not drained.
  2    Wrong usage.
  3    No lictor answers.

Examples:

    $ lictor undrain n1/web-2
    $ lictor undrain web 10.0.0.7:8080
`
}

func (c *undrainCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	return c.order(rest, err, "undrain", admin.DrainRequest{Reason: c.reason},
		func(s string, e *admin.Endpoint, _ *admin.DrainAnswer) string {
			return fmt.Sprintf("undrained %s of service %q", e.ID, s)
		})
}

// order sends a request for the endpoint that the arguments name, and prints what done returns. An error means wrong
// usage. order returns the exit code.
func (a *asker) order(
	args []string, err error, action string, request admin.DrainRequest,
	done func(service string, e *admin.Endpoint, answer *admin.DrainAnswer) string,
) int {
	switch {
	case err != nil:
	case len(args) == 0:
		err = errors.New("no ENDPOINT given; \"lictor status SERVICE\" lists the endpoints")
	case len(args) > 2:
		err = fmt.Errorf("unexpected argument %q", args[2])
	}
	if err != nil {
		return a.usage(a.name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, _, err := a.connect(ctx)
	if err != nil {
		return a.fail(err)
	}
	defer client.Close()
	s, e, err := endpointOf(ctx, client, args, action == "undrain")
	if err != nil {
		return a.fail(err)
	}
	var answer admin.DrainAnswer
	request.Endpoint, request.User = e.ID, operator()
	err = client.Post(ctx, servicePath(s)+"/"+action, request, &answer)
	var refusal *admin.APIError
	switch {
	case errors.As(err, &refusal) && refusal.Code == http.StatusConflict:
		err = fmt.Errorf("%w\nAdd -force to drain it all the same", err)
	case err != nil:
	case a.json:
		err = a.print(&answer)
	default:
		_, err = fmt.Fprintln(a.out, visible.Text(done(s, e, &answer)))
	}
	if err != nil {
		return a.fail(err)
	}
	return exitOK
}

// operator returns the name of the user who runs the command, or "" if it is unknown. With sudo that is the user who
// ran sudo. Lictor believes the name only where the system cannot tell it.
func operator() string {
	current, err := user.Current()
	if err != nil {
		return os.Getenv("SUDO_USER")
	}
	if current.Uid != "0" {
		return current.Username
	}
	return cmp.Or(os.Getenv("SUDO_USER"), current.Username)
}

// endpointOf finds the endpoint that [SERVICE] ENDPOINT names, by its ID or address. If several services have it and
// drained is set, endpointOf takes the only one in which it is drained.
func endpointOf(
	ctx context.Context, client *admin.Client, args []string, drained bool,
) (string, *admin.Endpoint, error) {
	services, name := []admin.Service{}, args[len(args)-1]
	if len(args) == 2 {
		s, err := service(ctx, client, args[0])
		if err != nil {
			return "", nil, err
		}
		services = append(services, *s)
	} else {
		var all admin.ServicesAnswer
		if err := client.Get(ctx, "/v1/services", &all); err != nil {
			return "", nil, err
		}
		services = all.Services
	}
	in, known := having(services, name)
	if chosen := slices.DeleteFunc(slices.Clone(in), func(p place) bool {
		return p.endpoint.Reason != admin.ReasonDrained
	}); drained && len(chosen) == 1 {
		in = chosen
	}
	switch {
	case len(in) == 0 && len(args) == 2:
		return "", nil, fmt.Errorf("service %q has no endpoint %q%s", args[0], name, suggestion(name, known))
	case len(in) == 0:
		return "", nil, fmt.Errorf("no service has an endpoint %q%s", name, suggestion(name, known))
	case len(in) > 1:
		var names []string
		for _, p := range in {
			names = append(names, p.service)
		}
		return "", nil, fmt.Errorf("%d services have the endpoint %q (%s): name one of them before the endpoint",
			len(in), name, strings.Join(names, ", "))
	}
	return in[0].service, in[0].endpoint, nil
}

// A place is an endpoint of a service.
type place struct {
	service  string
	endpoint *admin.Endpoint
}

// having returns the places of the endpoint with that ID or address, one for each service, and the names of all
// endpoints.
func having(services []admin.Service, name string) (in []place, known []string) {
	for i := range services {
		var one *admin.Endpoint
		for j := range services[i].Endpoints {
			e := &services[i].Endpoints[j]
			if e.ID == name || one == nil && e.Address == name {
				one = e
			}
			known = append(known, e.ID, e.Address)
		}
		if one != nil {
			in = append(in, place{services[i].Name, one})
		}
	}
	return in, known
}

// namesToDrain returns a namer of the arguments [SERVICE] ENDPOINT. It names only endpoints that have the reason, or
// only those that do not have it.
func namesToDrain(reason string, having bool) namer {
	return func(services []admin.Service, rest []string) (names []string) {
		if len(rest) > 1 {
			return nil
		}
		for i := range services {
			s := services[i]
			s.Endpoints = nil
			for _, e := range services[i].Endpoints {
				if (e.Reason == reason) == having {
					s.Endpoints = append(s.Endpoints, e)
				}
			}
			if len(s.Endpoints) == 0 {
				continue
			}
			names = append(names, endpointNames([]admin.Service{s}, rest)...)
			names = append(names, serviceNames([]admin.Service{s}, rest)...)
		}
		return names
	}
}
