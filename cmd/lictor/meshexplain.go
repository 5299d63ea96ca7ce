package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// explain prints whether one service of the mesh may use another.
func (c *meshCommand) explain(ctx context.Context, client *admin.Client, source, destination string) int {
	query := url.Values{"source": {source}, "destination": {destination}}
	var e admin.ExplainedAccess
	if err := client.Get(ctx, "/v1/mesh/access?"+query.Encode(), &e); err != nil {
		return c.fail(err)
	}
	err := error(nil)
	if c.json {
		err = c.print(e)
	} else {
		err = writeAccess(c.out, &e)
	}
	if err != nil {
		return c.fail(err)
	}
	return exitOf(e.Known && !e.Allowed, !e.Known)
}

func writeAccess(w io.Writer, e *admin.ExplainedAccess) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, text string) { fmt.Fprintf(t, "%s\t%s\n", visible.Text(name), visible.Text(text)) }
	verdict := "not known: " + e.Error
	switch {
	case e.Known && e.Allowed:
		verdict = "allowed"
	case e.Known:
		verdict = "denied"
	}
	line(e.Source+" -> "+e.Destination, verdict)
	if e.Known {
		line("because", e.By)
		line("according to", e.From)
	}
	for i := range e.Identities {
		one := &e.Identities[i]
		text := identityState(one)
		if why := one.Trouble(); why != "" {
			text += ", " + why
		}
		line("certificate of "+one.Name, text)
	}
	for i := range e.Routes {
		r := &e.Routes[i]
		line("dialled by", fmt.Sprintf("service %s at %s: %s", r.Service, strings.Join(r.Listeners, ", "), r.State))
		for k := range r.Endpoints {
			one := &r.Endpoints[k]
			line("  endpoint", fmt.Sprintf("%s at %s, must be %s: %s", one.ID, one.Address, one.Identity, one.State))
		}
	}
	if len(e.Routes) == 0 {
		line("dialled by", fmt.Sprintf("no service of this host as %q", e.Source))
	}
	if x := e.Exposed; x != nil {
		line("exposed here", strings.TrimSuffix(x.State+": "+x.Reason, ": "))
		for i := range x.Instances {
			line("  instance", x.Instances[i].ServiceID+" at "+x.Instances[i].Listen)
		}
	}
	return t.Flush()
}

// writeExposed lists the services of this host that are served to the mesh.
func writeExposed(w io.Writer, exposed []admin.Exposed) error {
	if len(exposed) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	all := &table{gap: 2, spill: true, columns: []column{
		{title: "EXPOSED", cut: middle}, {title: "STATE"}, {title: "LISTEN", drop: 1}, {title: "LOCAL", drop: 2},
		{title: "ACTIVE", align: right}, {title: "DENIED", align: right}, {title: "NOTE", cut: end},
	}}
	for i := range exposed {
		one := &exposed[i]
		note := one.Reason
		if one.Permissive {
			note = strings.TrimSuffix("PERMISSIVE, plain text is served too; "+note, "; ")
		}
		for k := range one.Instances {
			x := &one.Instances[k]
			about := []string{note}
			if len(x.Clients) > 0 {
				about = append(about, "most from "+x.Clients[0].Identity)
			}
			all.add(visible.Text(x.Name), visible.Text(one.State), visible.Text(x.Listen), visible.Text(x.Local),
				fmt.Sprint(x.Connections),
				fmt.Sprint(x.Denied+x.Ended), visible.Text(strings.TrimPrefix(strings.Join(about, "; "), "; ")))
		}
		if len(one.Instances) == 0 {
			all.add(visible.Text(one.Service), visible.Text(one.State), "-", "-", "-", "-", visible.Text(note))
		}
	}
	return all.write(w)
}
