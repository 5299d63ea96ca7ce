package main

import (
	"cmp"
	"fmt"
	"maps"
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
		r.fails = rate(c.DialsFailed+c.DatagramsDropped+c.DatagramsOverrun,
			p.DialsFailed+p.DatagramsDropped+p.DatagramsOverrun)
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
		{'r', "refused/s", func(r *topRow) float64 { return r.RefusedRate }},
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

// The looks of text. NO_COLOR takes away only the colours.
const (
	bold, dim, reverse, red, yellow, plainText = "\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
)

// A topScreen is what a frame shows.
type topScreen struct {
	status *admin.Status
	rows   []topRow
	view   *topView
	news   string // about the connection to the running lictor; empty if there is nothing to say
	lost   bool   // the running lictor does not answer, so the rows are old
	plain  bool   // without colours
}

// frame draws a screen of width by height characters. A width or a height of 0 means without a limit.
func (s *topScreen) frame(width, height int) string {
	v := s.view
	rows := v.shown(s.rows)
	lines, at := s.lines(rows, width)
	head := append(s.head(len(rows), width), lines[0])
	lines = lines[1:]
	if v.help {
		head, lines = head[:3], nil
		for _, line := range topHelp() {
			lines = append(lines, fit(width, line))
		}
	}
	if height > 0 {
		v.page = max(height-len(head), 1)
		if v.follow {
			v.first = min(max(v.first, at-v.page+1), at)
			v.follow = false
		}
		v.first = max(min(v.first, len(lines)-v.page), 0)
		lines = lines[v.first:min(v.first+v.page, len(lines))]
	}
	return strings.Join(append(head, lines...), "\r\n")
}

// fit returns the first of the texts that has at most width characters, or else the last one, shortened. A width of 0
// means without a limit.
func fit(width int, texts ...string) string {
	for _, text := range texts {
		if width == 0 || utf8.RuneCountInString(text) <= width {
			return text
		}
	}
	return cut(texts[len(texts)-1], width)
}

// head returns the lines above the table. shown is the number of rows in it.
func (s *topScreen) head(shown, width int) []string {
	t := s.status
	var clients, refused, up, down float64
	for i := range s.rows {
		r := &s.rows[i]
		clients, refused, up, down = clients+r.clients, refused+r.RefusedRate, up+r.up, down+r.down
	}
	state := "ready"
	if !t.Ready {
		state = fmt.Sprintf("NOT READY (%d)", len(t.NotReady))
	}
	if t.Stale > 0 {
		state += fmt.Sprintf(", %d STALE", t.Stale)
	}
	if t.Refusing > 0 {
		state += fmt.Sprintf("  ! %d refusing clients", t.Refusing)
	}
	if t.Degraded > 0 {
		state += fmt.Sprintf("  * %d degraded", t.Degraded)
	}
	age := "  up " + brief(t.Now.Sub(t.Started)) + "  " + state
	version, host := " "+visible.Text(t.Version), on(t.Host)
	first := fit(width, "lictor"+version+host+age, "lictor"+host+age, "lictor"+age, "lictor  "+state)
	counts := fmt.Sprintf("%s, %d in, %d out  %d active  %s/s  %s refused/s", config.Plural(t.Services, "service"),
		t.EndpointsIn, t.EndpointsOut, t.ConnectionsActive+t.SessionsActive, number(clients), number(refused))
	second := fit(width, counts+fmt.Sprintf("  %s/s up  %s/s down", size(up), size(down)), counts)
	if s.news != "" {
		second = bold + fit(width, visible.Text(s.news)) + plainText
	}
	if s.lost {
		second = s.colour(red) + second
	}
	return []string{bold + first + plainText, second, s.prompt(shown, width)}
}

// prompt returns the line about the filter or the keys. shown is the number of rows that the filter lets through.
func (s *topScreen) prompt(shown, width int) string {
	v := s.view
	if v.typing {
		text := fmt.Sprintf("filter: %s_   %d of %d   Enter: done  Esc: all", v.filter, shown, len(s.rows))
		return bold + fit(width, text) + plainText
	}
	text := "? help  / filter  q quit   order:"
	if v.filter != "" || v.problems {
		what := []string{}
		if v.filter != "" {
			what = append(what, fmt.Sprintf("%q", v.filter))
		}
		if v.problems {
			what = append(what, "not fine")
		}
		text = fmt.Sprintf("only %s: %d of %d  Esc: all   order:", strings.Join(what, ", "), shown, len(s.rows))
	}
	for _, order := range topSorts() {
		if order.key == v.sort {
			text += fmt.Sprintf(" [%c %s]", order.key, order.name)
		} else {
			text += fmt.Sprintf(" %c %s", order.key, order.name)
		}
	}
	return dim + fit(width, text) + plainText
}

// colour returns a colour, or "" without colours.
func (s *topScreen) colour(c string) string {
	if s.plain {
		return ""
	}
	return c
}

// topTable returns a table of the rows, without the endpoints of services. The column of the order always stays.
func topTable(now time.Time, rows []topRow, order byte) *table {
	t := &table{gap: 1, columns: []column{
		{title: "  SERVICE", cut: middle}, {title: "PROTO", drop: 8}, {title: "IN", align: right, least: 3},
		{title: "OUT", align: right, least: 3, drop: 1}, {title: "ACTIVE", align: right, least: 6, drop: 2},
		{title: "CLIENTS/S", align: right, least: 9, drop: 3}, {title: "REFUSED/S", align: right, least: 9},
		{title: "UP/S", align: right, least: 8, drop: 5}, {title: "DOWN/S", align: right, least: 8, drop: 4},
		{title: "LATENCY", align: right, least: 8, drop: 6}, {title: "FAILS/S", align: right, least: 7, drop: 7},
		{title: "NOTE", cut: end},
	}}
	for i := range t.columns {
		for _, sorted := range topSorts() {
			if c := &t.columns[i]; sorted.key == order && strings.EqualFold(c.title, sorted.name) {
				c.drop = 0
			}
		}
	}
	for i := range rows {
		r := &rows[i]
		in := r.In()
		t.add(mark(r.State)+visible.Text(r.Name), visible.Text(r.Protocol), fmt.Sprint(in),
			fmt.Sprint(len(r.Endpoints)-in), fmt.Sprint(r.active), number(r.clients), number(r.RefusedRate), size(r.up),
			size(r.down), latency(r.latency), number(r.fails), visible.Text(topNote(now, r.Service)))
	}
	return t
}

// mark returns the sign before the name of a service.
func mark(state string) string {
	switch state {
	case admin.StateRefusing:
		return "! "
	case admin.StateDegraded:
		return "* "
	}
	return "  "
}

// topNote returns why a service is not fine, or that clients wait. For refused clients it names the reasons, with the
// rate of each if there are several.
func topNote(now time.Time, s *admin.Service) string {
	var parts []string
	for _, by := range slices.Sorted(maps.Keys(s.RefusedRateBy)) {
		text := by
		if len(s.RefusedRateBy) > 1 {
			text += " " + number(s.RefusedRateBy[by]) + "/s"
		}
		parts = append(parts, text)
	}
	text := ""
	switch {
	case s.EmptyUntil != nil || s.Waiting > 0 && len(s.Reasons) == 0:
		text = waitingText(s)
	case len(s.Reasons) > 0:
		text = reasonText(now, &s.Reasons[0])
	}
	if len(parts) == 0 {
		return text
	}
	return strings.TrimRight(strings.Join(parts, ", ")+"; "+text, "; ")
}

// lines returns the heading and the lines of all rows, and the index of the selected line after the heading. The
// reasons and the endpoints of an open service follow its line.
func (s *topScreen) lines(rows []topRow, width int) (lines []string, at int) {
	v := s.view
	text := topTable(s.status.Now, rows, v.sort).lines(width)
	lines = []string{reverse + stretch(text[0], width) + plainText}
	for i := range rows {
		r, line := &rows[i], text[i+1]
		switch {
		case r.Name == v.selected:
			at = len(lines) - 1
			line = reverse + stretch(line, width) + plainText
		case s.lost:
			line = dim + line + plainText
		case r.State == admin.StateRefusing:
			line = s.colour(red) + line + plainText
		case r.State == admin.StateDegraded:
			line = s.colour(yellow) + line + plainText
		}
		lines = append(lines, line)
		if !v.open[r.Name] {
			continue
		}
		for j := range r.Reasons {
			why := "    " + r.Reasons[j].Kind + ": " + reasonText(s.status.Now, &r.Reasons[j])
			lines = append(lines, dim+fit(width, visible.Text(why))+plainText)
		}
		for j := range r.endpoints {
			lines = append(lines, dim+fit(width, endpointLine(s.status.Now, &r.endpoints[j]))+plainText)
		}
	}
	return lines, at
}

// stretch extends s to width characters. A width of 0 leaves s as it is.
func stretch(s string, width int) string {
	if width == 0 {
		return s
	}
	return pad(s, width)
}

func endpointLine(now time.Time, e *topEndpoint) string {
	name := visible.Text(e.ID)
	if e.ID != e.Address { // a static endpoint has its address as ID
		name += "  " + visible.Text(e.Address)
	}
	line := fmt.Sprintf("    %-3s %s  %s", visible.Text(e.State), name, visible.Text(why(now, e.Endpoint)))
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

// unadorned returns a frame without colours and trailing spaces, for output that is not a terminal.
func unadorned(s string) string {
	s = strings.NewReplacer(bold, "", dim, "", reverse, "", red, "", yellow, "", plainText, "", "\r\n", "\n").Replace(s)
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
