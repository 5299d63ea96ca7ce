package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// answerTime is the timeout for an answer of a running lictor.
const answerTime = 10 * time.Second

type statusCommand struct {
	asker
	problems bool
}

func newStatusCommand(c console) *statusCommand {
	return &statusCommand{asker: asker{console: c, name: "status"}}
}

func (c *statusCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("status", flag.ContinueOnError)
	c.askFlags(f)
	f.BoolVar(&c.problems, "problems", false, "")
	return f
}

func (c *statusCommand) Synopsis() string              { return "Show the services of the running lictor" }
func (c *statusCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }
func (c *statusCommand) AutocompleteArgs() predictor   { return c.names(c.flags, serviceNames) }

func (c *statusCommand) Help() string {
	return `Usage: lictor status [options] [SERVICE]

  Lists the services of the running lictor: the state of each, how many
  endpoints get clients (IN) and how many do not (OUT), how many connections or
  sessions are open, and what is wrong, if anything. With SERVICE, shows all
  about that service.

  A service is fine, degraded (it serves its clients, but something needs
  attention), or REFUSING clients. docs/api.md lists the reasons.

  If the terminal or $COLUMNS is too narrow, columns are left out, long names
  are shortened, and a long NOTE is on a line of its own.

Options:

` + askOptions + `  -json               Print JSON: {"status": ..., "services": [...]}, or with
                      SERVICE only that service. docs/api.md describes the
                      fields.
  -problems           List only services that are not fine.

Exit codes:

  0    No service refuses clients, and no source of a service fails.
  1    The source of a service fails, or there is no such service.
  2    Wrong usage.
  3    No lictor answers.
  4    A service refuses clients, or would refuse the next one.

Examples:

    $ lictor status
    $ lictor status web
    $ lictor status -problems
    $ lictor status -json | jq -r '.services[] | select(.stale_since) | .name'
`
}

func (c *statusCommand) Run(args []string) int {
	rest, err := parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) > 1:
		err = fmt.Errorf("unexpected argument %q", rest[1])
	case len(rest) == 1 && c.problems:
		err = errors.New("-problems lists services; do not name one")
	}
	if err != nil {
		return c.usage("status", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, status, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	if len(rest) == 1 {
		return c.one(ctx, client, rest[0])
	}
	var all admin.ServicesAnswer
	if err := client.Get(ctx, "/v1/services", &all); err != nil {
		return c.fail(err)
	}
	if c.problems {
		all.Services = slices.DeleteFunc(all.Services, func(s admin.Service) bool { return s.State == admin.StateFine })
	}
	if c.json {
		err = c.print(struct {
			Status   *admin.Status   `json:"status"`
			Services []admin.Service `json:"services"`
		}{status, all.Services})
	} else {
		err = writeStatus(c.out, status, all.Services)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOf(status.Refusing > 0, !status.Ready || status.Stale > 0)
}

// exitOf returns the exit code for services of which one refuses clients, or has no fresh set.
func exitOf(refusing, stale bool) int {
	switch {
	case refusing:
		return exitRefusing
	case stale:
		return exitFailed
	}
	return exitOK
}

// one prints one service and returns the exit code.
func (c *statusCommand) one(ctx context.Context, client *admin.Client, name string) int {
	s, err := service(ctx, client, name)
	switch {
	case err != nil:
	case c.json:
		err = c.print(s)
	default:
		err = writeService(c.out, time.Now(), s)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOf(s.State == admin.StateRefusing, s.Set == admin.SetNone || s.StaleSince != nil)
}

func writeStatus(w io.Writer, t *admin.Status, services []admin.Service) error {
	ready := "ready"
	if !t.Ready {
		ready = fmt.Sprintf("NOT READY: %s without a first answer", config.Plural(len(t.NotReady), "service"))
	}
	width := widthOf(w)
	fmt.Fprintln(w, wrap([]string{fmt.Sprintf("lictor %s%s", visible.Text(t.Version), on(t.Host)),
		fmt.Sprintf("process %d", t.PID), "up " + brief(t.Now.Sub(t.Started)), ready}, ", ", width))
	fmt.Fprintln(w, wrap([]string{config.Plural(t.Services, "service") + troubled(t),
		config.Plural(t.EndpointsIn, "endpoint") + " in", fmt.Sprintf("%d out", t.EndpointsOut),
		config.Plural(int(t.ConnectionsActive), "connection"), config.Plural(int(t.SessionsActive), "session")},
		", ", width))
	if c := t.Consul; c != nil && len(c.Addresses) > 1 || c != nil && c.Moves > 0 {
		fmt.Fprintln(w, wrap(consulLine(t.Now, c), ", ", width))
	}
	if r := t.LastReload; r != nil && !r.OK {
		fmt.Fprintf(w, "the last reload (%s) FAILED: %s\n", ago(t.Now, &r.Time), visible.Text(r.Error))
	}
	for _, p := range t.Pending {
		fmt.Fprintf(w, "pending until a restart or an upgrade: %s = %s; in force: %s\n", visible.Text(p.Argument),
			visible.Text(orUnset(p.Configured)), visible.Text(orUnset(p.InForce)))
	}
	for _, d := range t.Denied {
		fmt.Fprintf(w, "the system denies %s (%s): %s\n", visible.Text(d.Call), visible.Text(d.Error),
			visible.Text(d.Instead))
	}
	fmt.Fprintln(w)
	all := &table{gap: 2, spill: true, columns: []column{
		{title: "SERVICE", cut: middle}, {title: "STATE"}, {title: "PROTO", drop: 3}, {title: "LISTEN"},
		{title: "IN", align: right}, {title: "OUT", align: right, drop: 1}, {title: "ACTIVE", align: right, drop: 2},
		{title: "NOTE", cut: end},
	}}
	for i := range services {
		s := &services[i]
		in := s.In()
		all.add(visible.Text(s.Name), visible.Text(stateText(s.State)), visible.Text(s.Protocol),
			visible.Text(strings.Join(s.Listeners, ",")), fmt.Sprint(in), fmt.Sprint(len(s.Endpoints)-in),
			fmt.Sprint(s.Counters.ConnectionsActive+s.Counters.SessionsActive), visible.Text(note(t.Now, s)))
	}
	return all.write(w)
}

// consulLine says at which address of Consul the lictor is, and why.
func consulLine(now time.Time, c *admin.Consul) []string {
	parts := []string{fmt.Sprintf("consul at %s for %s", visible.Text(c.Address), brief(now.Sub(c.Since)))}
	if c.Moves > 0 {
		parts = append(parts, fmt.Sprintf("before at %s: %s", visible.Text(c.From), visible.Text(c.Why)))
	}
	return parts
}

// orUnset returns the value of an argument, or "(not set)" if it is empty.
func orUnset(value string) string {
	if value == "" {
		return "(not set)"
	}
	return value
}

// on returns " on " and the name of a host, or "" if there is no name.
func on(host string) string {
	if host == "" {
		return ""
	}
	return " on " + visible.Text(host)
}

// troubled says how many services are not fine, such as " (1 refuses clients, 2 degraded)". It returns "" if all are
// fine.
func troubled(t *admin.Status) string {
	var parts []string
	if t.Refusing > 0 {
		verb := "refuse"
		if t.Refusing == 1 {
			verb = "refuses"
		}
		parts = append(parts, fmt.Sprintf("%d %s clients", t.Refusing, verb))
	}
	if t.Degraded > 0 {
		parts = append(parts, fmt.Sprintf("%d degraded", t.Degraded))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// stateText returns a state as tables show it. Only the state that hurts clients is in capitals.
func stateText(state string) string {
	switch state {
	case admin.StateRefusing:
		return "REFUSING"
	case "":
		return "?" // an earlier lictor does not say
	}
	return state
}

// note returns the most serious problem of a service in a few words, or when its endpoints last changed.
func note(now time.Time, s *admin.Service) string {
	switch {
	case s.EmptyUntil != nil:
		return waitingText(s)
	case len(s.Reasons) > 0:
		return refusedText(s) + reasonText(now, &s.Reasons[0])
	case s.Waiting > 0:
		return waitingText(s)
	case s.Problem != "":
		return s.Problem
	}
	return "changed " + ago(now, s.LastChange)
}

// reasonText returns the text of a reason, after the time for which the reason has held if that is known.
func reasonText(now time.Time, r *admin.Reason) string {
	if r.Since == nil {
		return r.Text
	}
	return "for " + brief(now.Sub(*r.Since)) + ": " + r.Text
}

// refusedText returns the rate of refused clients before another text, such as "2.5 refused/s; ", or "" if none are
// refused.
func refusedText(s *admin.Service) string {
	if s.RefusedRate == 0 {
		return ""
	}
	return number(s.RefusedRate) + " refused/s; "
}

// waitingText says how many clients wait and what for.
func waitingText(s *admin.Service) string {
	text := config.Plural(int(s.Waiting), "client") + " waiting"
	if s.EmptyUntil != nil {
		return text + " for an endpoint until " + s.EmptyUntil.Local().Format(time.TimeOnly)
	}
	return text + " for a free slot"
}

func writeService(w io.Writer, now time.Time, s *admin.Service) error {
	c := &s.Counters
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, visible.Text(fmt.Sprintf(format, args...)))
	}
	line("service", "%s", s.Name)
	line("listens on", "%s %s", s.Protocol, strings.Join(s.Listeners, ", "))
	line("endpoints from", "%s", s.Source)
	line("state", "%s", stateText(s.State))
	for i := range s.Reasons {
		line("because", "%s", reasonText(now, &s.Reasons[i]))
	}
	line("endpoints", "%d in, %d out, changed %s", s.In(), len(s.Endpoints)-s.In(), ago(now, s.LastChange))
	if s.Near != nil {
		line("preference", "%s", s.Near.Text())
	}
	if s.Path.Asks() {
		line("path", "%s", s.Path.Text())
	}
	if k := s.Kernel; k != nil {
		line("kernel path", "%s", kernelText(k))
	}
	if s.Waiting > 0 || s.EmptyUntil != nil {
		line("queue", "%s", waitingText(s))
	}
	if s.LastSuccess != nil {
		line("last confirmed", "%s", ago(now, s.LastSuccess))
	}
	if s.Protocol == "udp" {
		line("sessions", "%d now, %d in total, %d evicted", c.SessionsActive, c.Sessions, c.SessionsEvicted)
		overrun := ""
		if c.DatagramsOverrun > 0 {
			overrun = fmt.Sprintf(", %d dropped by the kernel at the listener", c.DatagramsOverrun)
		}
		line("datagrams", "%d up, %d down, %d dropped%s", c.DatagramsUp, c.DatagramsDown, c.DatagramsDropped, overrun)
	} else {
		line("connections", "%d now, %d in total", c.ConnectionsActive, c.Connections)
		if c.Dials > 0 {
			line("dials", "%d, %.2f ms each", c.Dials, 1000*c.DialSeconds/float64(c.Dials))
		}
	}
	line("failures", "%d failed attempts, %d retries; %s", c.DialsFailed, c.Retries,
		config.Plural(int(c.Ejections), "ejection"))
	line("bytes", "%s up, %s down", size(float64(c.BytesUp)), size(float64(c.BytesDown)))
	line("refused", "%s%s%s", config.Plural(int(c.Refused), "client"), reasons(c.RefusedBy), lately(s))
	line("descriptors", "%s", descriptorText(s))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return writeEndpoints(w, now, s.Endpoints)
}

// kernelText says in words what the kernel path has counted for a service.
func kernelText(k *admin.KernelCounters) string {
	return fmt.Sprintf("%s now, %d in total, %d failed, %d abandoned",
		config.Plural(int(k.ConnectionsActive), "connection"), k.Connections, k.DialsFailed, k.Abandoned)
}

// descriptorText says how many descriptors a service uses, how many are reserved for it, and how many it may have.
func descriptorText(s *admin.Service) string {
	d := &s.Descriptors
	text := fmt.Sprintf("%d in use, %d reserved, %d at most", d.Taken, d.Floor, d.Ceiling)
	if s.Protocol == "udp" {
		return text
	}
	return text + fmt.Sprintf("; clients waited %d times", s.Counters.DescriptorWaits)
}

// reasons returns the counts by reason, such as ": full 3, per_client 2", or "" if there are none.
func reasons(by map[string]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, by[reason]))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// lately returns the rate of refused clients as an addition, such as "; 2.5/s now", or "" if none are refused.
func lately(s *admin.Service) string {
	if s.RefusedRate == 0 {
		return ""
	}
	return "; " + number(s.RefusedRate) + "/s now"
}

func writeEndpoints(w io.Writer, now time.Time, endpoints []admin.Endpoint) error {
	if len(endpoints) == 0 {
		_, err := fmt.Fprintln(w, "no endpoints")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENDPOINT\tADDRESS\tWEIGHT\tSTATE\tWHY")
	for i := range endpoints {
		e := &endpoints[i]
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", visible.Text(e.ID), visible.Text(e.Address), e.Weight,
			visible.Text(e.State), visible.Text(why(now, e)))
	}
	return t.Flush()
}

// why returns the reason of an endpoint's state, how long the state has lasted, and how long it will last.
func why(now time.Time, e *admin.Endpoint) string {
	text := e.Reason
	if e.Since != nil {
		text += " for " + brief(now.Sub(*e.Since))
	}
	if e.Until != nil {
		text += ", for another " + brief(e.Until.Sub(now))
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// size returns n bytes with a decimal unit, such as "1.5 kB".
func size(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n, i = n/1000, i+1
	}
	if i == 0 || n >= 99.95 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}
