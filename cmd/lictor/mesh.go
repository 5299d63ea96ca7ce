package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

type meshCommand struct{ asker }

func newMeshCommand(c console) *meshCommand { return &meshCommand{asker{console: c, name: "mesh"}} }

func (c *meshCommand) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mesh", flag.ContinueOnError)
	c.askFlags(f)
	return f
}

func (c *meshCommand) Synopsis() string              { return "Show the identities in Consul's service mesh" }
func (c *meshCommand) AutocompleteFlags() predictors { return askCompletions(c.flags()) }

// AutocompleteArgs completes "status", and then the names of identities.
func (c *meshCommand) AutocompleteArgs() predictor {
	return func(line typed) []string {
		rest, err := parse(c.flags(), line.words)
		switch {
		case err != nil || len(rest) > 1:
			return nil
		case len(rest) == 0:
			return []string{"explain", "status"}
		}
		return within(completionTime, func(ctx context.Context) (names []string) {
			client, _, err := c.connect(ctx)
			if err != nil {
				return nil
			}
			defer client.Close()
			var m admin.MeshAnswer
			if client.Get(ctx, "/v1/mesh", &m) == nil {
				for i := range m.Identities {
					names = append(names, m.Identities[i].Name)
				}
			}
			return names
		})
	}
}

func (c *meshCommand) Help() string {
	return `Usage: lictor mesh status [options] [IDENTITY]
       lictor mesh explain [options] SOURCE DESTINATION

  Shows what the running lictor has of Consul's service mesh: the trust domain
  and its authorities, and for each identity the SPIFFE ID, how long its
  certificate is still valid (LEFT), the services that dial with it, and what is
  wrong, if anything. With IDENTITY, shows all about that one.

  An identity is fine, failing (Consul gives no new certificate, and the former
  one stays in use), expiring (Consul should have renewed it by now), WAITING
  (there is no certificate yet) or EXPIRED. Services with an identity that is
  waiting or expired refuse clients.

  Services of this host that are served to the mesh follow: where, how many
  connections they have, how many clients intentions have denied, and what is
  wrong, if anything.

  With explain, says whether the service SOURCE may use DESTINATION in the mesh,
  which intention decides, how the certificates of both are, and through which
  service and endpoints of this host the way leads. "SOURCE -> DESTINATION" is
  accepted too, in quotes: a shell takes > for the name of a file. The exit code
  is 4 if it may not, and 1 if it is not known.

  If the terminal or $COLUMNS is too narrow, columns are left out, long names
  are shortened, and a long NOTE is on a line of its own.

Options:

` + askOptions + `  -json               Print JSON: {"trust_domain": ..., "roots": [...],
                      "identities": [...]}, or with IDENTITY only that
                      identity. docs/api.md describes the fields.

Exit codes:

  0    Nothing is wrong with the identities and the exposed services, or there
       are none.
  1    An identity is failing or expiring, an exposed service is not served to
       the mesh as configured, or there is no such identity.
  2    Wrong usage.
  3    No lictor answers.
  4    Services refuse clients, because an identity is waiting or expired.

Examples:

    $ lictor mesh status
    $ lictor mesh status web
    $ lictor mesh explain web billing
    $ lictor mesh status -json | jq -r '.identities[] | .name + " " + .expires'
`
}

// command returns the command that args name, which is status or explain, with its arguments.
func (c *meshCommand) command(args []string) (rest []string, err error) {
	if i := slices.Index(args, "explain") + 1; i > 0 {
		args = slices.Concat(args[:i], withoutArrow(args[i:])) // parse would take an arrow for an option
	}
	rest, err = parse(c.flags(), args)
	switch {
	case err != nil:
	case len(rest) == 0:
		err = errors.New(`write "lictor mesh status"`)
	case rest[0] == "explain":
		if len(rest) != 3 {
			err = errors.New(`write "lictor mesh explain SOURCE DESTINATION"`)
		}
	case rest[0] != "status":
		err = fmt.Errorf("there is no command %q of mesh%s", rest[0],
			suggestion(rest[0], []string{"status", "explain"}))
	case len(rest) > 2:
		err = fmt.Errorf("unexpected argument %q", rest[2])
	}
	return rest, err
}

// withoutArrow returns args with the source and the destination of "SOURCE -> DESTINATION" as two arguments. With the
// arrow, they may be one argument or three.
func withoutArrow(args []string) (all []string) {
	for _, arg := range args {
		source, destination, is := strings.Cut(arg, "->")
		if !is {
			all = append(all, arg)
			continue
		}
		for _, name := range []string{strings.TrimSpace(source), strings.TrimSpace(destination)} {
			if name != "" {
				all = append(all, name)
			}
		}
	}
	return all
}

func (c *meshCommand) Run(args []string) int {
	rest, err := c.command(args)
	if err != nil {
		return c.usage("mesh", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	client, _, err := c.connect(ctx)
	if err != nil {
		return c.fail(err)
	}
	defer client.Close()
	if rest[0] == "explain" {
		return c.explain(ctx, client, rest[1], rest[2])
	}
	var m admin.MeshAnswer
	if err := client.Get(ctx, "/v1/mesh", &m); err != nil {
		return c.fail(err)
	}
	if len(rest) == 2 {
		return c.one(&m, rest[1])
	}
	if c.json {
		err = c.print(m)
	} else {
		err = writeMesh(c.out, &m)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOfMesh(m.Identities, m.Exposed)
}

// one prints one identity and returns the exit code.
func (c *meshCommand) one(m *admin.MeshAnswer, name string) int {
	i := slices.IndexFunc(m.Identities, func(one admin.Identity) bool { return one.Name == name })
	if i < 0 {
		var names []string
		for _, one := range m.Identities {
			names = append(names, one.Name)
		}
		return c.fail(fmt.Errorf("no service uses an identity %q%s", name, suggestion(name, names)))
	}
	one := &m.Identities[i]
	var err error
	if c.json {
		err = c.print(one)
	} else {
		err = writeIdentity(c.out, m.Now, one)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOfMesh(m.Identities[i:i+1], nil)
}

// exitOfMesh returns the exit code for identities and exposed services.
func exitOfMesh(all []admin.Identity, exposed []admin.Exposed) int {
	unusable := slices.ContainsFunc(all, func(i admin.Identity) bool { return !i.Usable() })
	troubled := slices.ContainsFunc(all, func(i admin.Identity) bool { return i.State != admin.IdentityFine }) ||
		slices.ContainsFunc(exposed, func(x admin.Exposed) bool { return x.State != admin.ExposedFine })
	return exitOf(unusable, troubled)
}

func writeMesh(w io.Writer, m *admin.MeshAnswer) error {
	if len(m.Identities) == 0 {
		_, err := fmt.Fprintln(w, "no service uses the mesh")
		return err
	}
	domain := m.TrustDomain
	if domain == "" {
		domain = "not known yet"
	}
	fmt.Fprintf(w, "trust domain %s\n", visible.Text(domain))
	if m.Error != "" {
		fmt.Fprintf(w, "consul does not give the authorities: %s\n", visible.Text(m.Error))
	}
	for i := range m.Roots {
		r := &m.Roots[i]
		use := ""
		if r.Active {
			use = ", signs new certificates"
		}
		fmt.Fprintf(w, "authority %s%s, %s\n", visible.Text(r.Name), use, validity(m.Now, r.Expires))
	}
	fmt.Fprintln(w)
	all := &table{gap: 2, spill: true, columns: []column{
		{title: "IDENTITY", cut: middle}, {title: "STATE"}, {title: "LEFT", align: right},
		{title: "SPIFFE ID", drop: 2}, {title: "SERVICES", drop: 1}, {title: "NOTE", cut: end},
	}}
	for i := range m.Identities {
		one := &m.Identities[i]
		left, id := "-", "-"
		if one.Expires != nil {
			left, id = brief(one.Expires.Sub(m.Now)), one.SPIFFEID
		}
		all.add(visible.Text(one.Name), visible.Text(identityState(one)), left, visible.Text(id),
			visible.Text(strings.Join(one.Services, ",")), visible.Text(one.Error))
	}
	if err := all.write(w); err != nil {
		return err
	}
	return writeExposed(w, m.Exposed)
}

// validity says how long something is still valid, or since when it is not.
func validity(now, expires time.Time) string {
	if left := expires.Sub(now); left > 0 {
		return "expires in " + brief(left)
	}
	return "EXPIRED " + ago(now, &expires)
}

// identityState returns the state of an identity. The states in which services refuse clients are in capitals.
func identityState(i *admin.Identity) string {
	if i.Usable() {
		return i.State
	}
	return strings.ToUpper(i.State)
}

// identityText returns the name of an identity, and how its certificate is, in a line.
func identityText(now time.Time, i *admin.Identity) string {
	text := i.Name
	if i.SPIFFEID != "" {
		text += " (" + i.SPIFFEID + ")"
	}
	text += ": " + identityState(i)
	if i.Expires != nil && i.Usable() {
		text += ", certificate " + validity(now, *i.Expires)
	}
	return text
}

func writeIdentity(w io.Writer, now time.Time, i *admin.Identity) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", name, visible.Text(text)) }
	line("identity", i.Name)
	line("state", identityState(i))
	if text := i.Trouble(); text != "" {
		line("because", text)
	}
	if i.Expires != nil {
		line("SPIFFE ID", i.SPIFFEID)
		line("serial", i.Serial)
		line("certificate", validity(now, *i.Expires)+", received "+ago(now, i.Received))
	}
	if i.Answered != nil {
		line("Consul", "answered "+ago(now, i.Answered)+fmt.Sprintf(", %d failed questions", i.Failures))
	}
	line("used by", config.Plural(len(i.Services), "service")+": "+strings.Join(i.Services, ", "))
	return t.Flush()
}
