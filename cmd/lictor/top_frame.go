package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/visible"
)

// A topRow is one service over the last interval.
type topRow struct {
	*admin.Service
	active                            int64
	clients, up, down, fails, latency float64 // per second, except latency: mean seconds of a dial, 0 without dials
	endpoints                         []topEndpoint
}

type topEndpoint struct {
	*admin.Endpoint
	picks, fails float64 // per second
}

// topRows returns the services of now, with their rates since before. All rates are zero if before is nil or not older
// than now.
func topRows(before, now *admin.ServicesAnswer) []topRow {
	old := map[string]*admin.Service{}
	seconds := 1.0
	if before != nil && now.Now.After(before.Now) {
		seconds = now.Now.Sub(before.Now).Seconds()
		for i := range before.Services {
			old[before.Services[i].Name] = &before.Services[i]
		}
	}
	rows := make([]topRow, 0, len(now.Services))
	for i := range now.Services {
		s := &now.Services[i]
		r := topRow{Service: s, active: s.Counters.ConnectionsActive + s.Counters.SessionsActive}
		b := old[s.Name]
		if b == nil {
			b = s // a new service has no rates yet
		}
		rate := func(now, before int64) float64 { return float64(max(now-before, 0)) / seconds }
		c, p := &s.Counters, &b.Counters
		r.clients = rate(c.Connections+c.Sessions, p.Connections+p.Sessions)
		r.up, r.down = rate(c.BytesUp, p.BytesUp), rate(c.BytesDown, p.BytesDown)
		r.fails = rate(c.DialsFailed+c.Refused+c.DatagramsDropped+c.DatagramsOverrun,
			p.DialsFailed+p.Refused+p.DatagramsDropped+p.DatagramsOverrun)
		if n := c.Dials - p.Dials; n > 0 {
			r.latency = (c.DialSeconds - p.DialSeconds) / float64(n)
		}
		r.endpoints = topEndpoints(b, s, rate)
		rows = append(rows, r)
	}
	return rows
}

func topEndpoints(before, now *admin.Service, rate func(now, before int64) float64) []topEndpoint {
	old := map[string]*admin.EndpointCounters{}
	for i := range before.Endpoints {
		old[before.Endpoints[i].ID] = before.Endpoints[i].Counters
	}
	var all []topEndpoint
	for i := range now.Endpoints {
		e := topEndpoint{Endpoint: &now.Endpoints[i]}
		if c, p := e.Counters, old[e.ID]; c != nil && p != nil {
			e.picks, e.fails = rate(c.Picks, p.Picks), rate(c.DialsFailed, p.DialsFailed)
		}
		all = append(all, e)
	}
	return all
}

// A topView is the state that keys change: the order, the selected service, and the services that show their endpoints.
type topView struct {
	sort     byte   // key of a topSort
	selected string // name of the selected service
	open     map[string]bool
	first    int // index of the first line on the screen
}

// topSorts returns the orders of rows: for each its key, its name and the value to sort by. The largest value comes
// first. The order by name has no value and is alphabetic.
func topSorts() []struct {
	key  byte
	name string
	by   func(r *topRow) float64
} {
	return []struct {
		key  byte
		name string
		by   func(r *topRow) float64
	}{
		{'n', "name", nil},
		{'a', "active", func(r *topRow) float64 { return float64(r.active) }},
		{'c', "clients/s", func(r *topRow) float64 { return r.clients }},
		{'b', "bytes/s", func(r *topRow) float64 { return r.up + r.down }},
		{'l', "latency", func(r *topRow) float64 { return r.latency }},
		{'f', "fails/s", func(r *topRow) float64 { return r.fails }},
	}
}

func sortTop(rows []topRow, key byte) {
	for _, s := range topSorts() {
		if s.key == key && s.by != nil {
			slices.SortStableFunc(rows, func(a, b topRow) int {
				return cmp.Or(cmp.Compare(s.by(&b), s.by(&a)), strings.Compare(a.Name, b.Name))
			})
			return
		}
	}
	slices.SortStableFunc(rows, func(a, b topRow) int { return strings.Compare(a.Name, b.Name) })
}

const (
	bold, dim, reverse, red, plainText = "\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[31m", "\x1b[0m"
)

// frame draws a screen of width by height characters. A height of 0 means without a limit. frame scrolls the view so
// that the selected service is visible.
func frame(status *admin.Status, rows []topRow, v *topView, width, height int) string {
	sortTop(rows, v.sort)
	lines, at := topLines(status.Now, rows, v, width)
	head := topHead(status, rows, v, width)
	if height > 0 {
		room := max(height-len(head), 1)
		v.first = min(max(v.first, at-room+1), at)
		v.first = max(min(v.first, len(lines)-room), 0)
		lines = lines[v.first:min(v.first+room, len(lines))]
	}
	return strings.Join(append(head, lines...), "\r\n")
}

func topHead(t *admin.Status, rows []topRow, v *topView, width int) []string {
	var clients, up, down float64
	for i := range rows {
		clients, up, down = clients+rows[i].clients, up+rows[i].up, down+rows[i].down
	}
	state := "ready"
	if !t.Ready {
		state = fmt.Sprintf("NOT READY (%d)", len(t.NotReady))
	}
	if t.Stale > 0 {
		state += fmt.Sprintf(", %d STALE", t.Stale)
	}
	first := fmt.Sprintf("lictor %s  up %s  %s   %s, %d in, %d out   %d active  %s/s  %s/s up  %s/s down",
		visible.Text(t.Version), brief(t.Now.Sub(t.Started)), state,
		config.Plural(t.Services, "service"), t.EndpointsIn, t.EndpointsOut, t.ConnectionsActive+t.SessionsActive,
		number(clients), size(up), size(down))
	keys := "sort by:"
	for _, s := range topSorts() {
		if s.key == v.sort {
			keys += fmt.Sprintf(" [%c %s]", s.key, s.name)
		} else {
			keys += fmt.Sprintf(" %c %s", s.key, s.name)
		}
	}
	keys += "   arrows, enter: endpoints   q quit"
	columns := fmt.Sprintf("%s %5s %4s %4s %7s %9s %10s %10s %9s %8s  %s", pad("SERVICE", nameWidth(width)), "PROTO",
		"IN", "OUT", "ACTIVE", "CLIENTS/S", "UP/S", "DOWN/S", "LATENCY", "FAILS/S", "NOTE")
	return []string{bold + cut(first, width) + plainText, dim + cut(keys, width) + plainText,
		reverse + pad(cut(columns, width), width) + plainText}
}

// nameWidth returns the width of the column for service names.
func nameWidth(width int) int { return min(max(width-100, 14), 40) }

// topLines returns the lines of all services and the index of the selected line. The endpoints of an open service
// follow its line.
func topLines(now time.Time, rows []topRow, v *topView, width int) (lines []string, at int) {
	for i := range rows {
		r := &rows[i]
		in := r.In()
		line := fmt.Sprintf("%s %5s %4d %4d %7d %9s %10s %10s %9s %8s  %s", pad(visible.Text(r.Name), nameWidth(width)),
			visible.Text(r.Protocol), in, len(r.Endpoints)-in, r.active,
			number(r.clients), size(r.up), size(r.down), latency(r.latency), number(r.fails), visible.Text(note(now,
				r.Service)))
		line = pad(cut(line, width), width)
		switch {
		case r.Name == v.selected:
			at = len(lines)
			line = reverse + line + plainText
		case in == 0 || r.StaleSince != nil || r.fails > 0:
			line = red + line + plainText
		}
		lines = append(lines, line)
		if v.open[r.Name] {
			for j := range r.endpoints {
				lines = append(lines, dim+cut(endpointLine(now, &r.endpoints[j]), width)+plainText)
			}
		}
	}
	return lines, at
}

func endpointLine(now time.Time, e *topEndpoint) string {
	line := fmt.Sprintf("  %-3s %s  %s  %s", visible.Text(e.State), visible.Text(e.ID), visible.Text(e.Address),
		visible.Text(why(now, e.Endpoint)))
	if e.Counters != nil {
		line += fmt.Sprintf("  %d active  %s picks/s  %s fails/s", e.Counters.Active, number(e.picks), number(e.fails))
	}
	return line
}

func number(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 10:
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

func latency(seconds float64) string {
	switch {
	case seconds == 0:
		return "-"
	case seconds < 0.001:
		return fmt.Sprintf("%.0f us", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

// cut shortens s to at most width characters.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width, 0)])
}

// pad shortens or extends s to width characters.
func pad(s string, width int) string {
	s = cut(s, width)
	return s + strings.Repeat(" ", width-utf8.RuneCountInString(s))
}

// unadorned returns a frame without colours and trailing spaces, for output that is not a terminal.
func unadorned(s string) string {
	s = strings.NewReplacer(bold, "", dim, "", reverse, "", red, "", plainText, "", "\r\n", "\n").Replace(s)
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
