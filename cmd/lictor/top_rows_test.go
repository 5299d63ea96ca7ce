package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// answersApart returns two answers with a time of d between them.
func answersApart(d time.Duration, old, now []admin.Service) (before, after *admin.ServicesAnswer) {
	before = &admin.ServicesAnswer{Now: testNow.Add(-d), Services: old}
	return before, &admin.ServicesAnswer{Now: testNow, Services: now}
}

// counted returns a service whose counters have all grown by n, except those of dials.
func counted(name string, n int64) admin.Service {
	return admin.Service{Name: name, Counters: admin.Counters{
		Connections: n, Sessions: n, BytesUp: 10 * n, BytesDown: 100 * n, DialsFailed: n, Refused: n,
		DatagramsDropped: n, DatagramsOverrun: n, Dials: n, DialSeconds: float64(n) / 1000,
	}}
}

func TestTopRates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                              string
		apart                             time.Duration
		old, now                          []admin.Service
		clients, up, down, fails, latency float64 // of the last service
	}{
		{"two seconds", 2 * time.Second, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 10)},
			6, 30, 300, 9, 0.001},
		{"half a second", time.Second / 2, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 10)},
			24, 120, 1200, 36, 0.001},
		{"nothing new", time.Second, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 4)}, 0, 0, 0, 0, 0},
		{"after a restart", time.Second, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 1)},
			0, 0, 0, 0, 0},
		{"no time between", 0, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 10)}, 0, 0, 0, 0, 0},
		{"a service that is new", time.Second, nil, []admin.Service{counted("a", 10)}, 0, 0, 0, 0, 0},
		{"beside one that is new", time.Second / 2, []admin.Service{counted("b", 4)},
			[]admin.Service{counted("a", 10), counted("b", 10)}, 24, 120, 1200, 36, 0.001},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := topRows(answersApart(tt.apart, tt.old, tt.now))
			r := rows[len(rows)-1]
			got := []float64{r.clients, r.up, r.down, r.fails, r.latency}
			for i, want := range []float64{tt.clients, tt.up, tt.down, tt.fails, tt.latency} {
				if math.Abs(got[i]-want) > 1e-9 {
					t.Errorf("number %d: got %v, want %v", i, got[i], want)
				}
			}
		})
	}
}

// The first answer gives no rates.
func TestTopRowsOfTheFirstAnswer(t *testing.T) {
	t.Parallel()
	s := counted("a", 9)
	s.Counters.ConnectionsActive, s.Counters.SessionsActive = 3, 4
	rows := topRows(nil, &admin.ServicesAnswer{Services: []admin.Service{s}})
	if len(rows) != 1 || rows[0].active != 7 || rows[0].clients != 0 || rows[0].latency != 0 {
		t.Errorf("got %+v", rows)
	}
}

func TestTopRatesOfEndpoints(t *testing.T) {
	t.Parallel()
	of := func(id string, c *admin.EndpointCounters) admin.Endpoint { return admin.Endpoint{ID: id, Counters: c} }
	old := admin.Service{Name: "a", Endpoints: []admin.Endpoint{
		of("busy", &admin.EndpointCounters{Picks: 5, DialsFailed: 1}), of("uncounted", nil),
	}}
	now := admin.Service{Name: "a", Endpoints: []admin.Endpoint{
		of("busy", &admin.EndpointCounters{Picks: 25, DialsFailed: 3}),
		of("new", &admin.EndpointCounters{Picks: 100}), of("uncounted", &admin.EndpointCounters{Picks: 100}),
		of("out", nil),
	}}
	rows := topRows(answersApart(2*time.Second, []admin.Service{old}, []admin.Service{now}))
	got := ""
	for _, e := range rows[0].endpoints {
		got += fmt.Sprintf("%s %v %v\n", e.ID, e.picks, e.fails)
	}
	equal(t, got, "busy 10 1\nnew 0 0\nuncounted 0 0\nout 0 0\n")
}

// Each key sorts by its column, the largest value first. Equal rows are sorted by name.
func TestTopSorts(t *testing.T) {
	t.Parallel()
	row := func(name string, active int64, clients, up, down, latency, fails float64) topRow {
		return topRow{Service: &admin.Service{Name: name}, active: active, clients: clients, up: up, down: down,
			latency: latency, fails: fails}
	}
	rows := []topRow{row("d", 1, 0, 5, 5, 0.1, 0), row("a", 0, 3, 0, 0, 0.2, 0), row("c", 2, 0, 9, 0, 0, 7),
		row("b", 0, 4, 0, 0, 0, 1)}
	for key, want := range map[byte]string{
		'n': "abcd", 'a': "cdab", 'c': "bacd", 'b': "dcab", 'l': "adbc", 'f': "cbad", '?': "abcd",
	} {
		sortTop(rows, key)
		got := ""
		for i := range rows {
			got += rows[i].Name
		}
		if got != want {
			t.Errorf("%c: got %s, want %s", key, got, want)
		}
	}
}

func TestTopNumbers(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{0: "0", 0.04: "0.0", 0.25: "0.2", 9.94: "9.9", 10: "10", 1234.5: "1234"} {
		if got := number(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
	for seconds, want := range map[float64]string{
		0: "-", 0.000_000_4: "0 us", 0.000_123: "123 us", 0.001: "1.0 ms", 0.25: "250.0 ms", 1: "1.0 s", 90: "90.0 s",
	} {
		if got := latency(seconds); got != want {
			t.Errorf("%v: got %s, want %s", seconds, got, want)
		}
	}
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"web", 5, "web  "}, {"web", 3, "web"}, {"web", 2, "we"}, {"web", 0, ""}, {"äöü", 4, "äöü "},
		{"äöü", 2, "äö"},
	} {
		if got := pad(tt.text, tt.width); got != tt.want {
			t.Errorf("%q in %d: got %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

// screenOf returns a screen of rows, sorted by name.
func screenOf(status *admin.Status, rows []topRow) *topScreen {
	return &topScreen{status: status, rows: rows, view: &topView{sort: 'n', open: map[string]bool{}}}
}

func TestTopHead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status admin.Status
		want   string
	}{
		{admin.Status{Ready: true}, "up 0ms  ready\n0 services,"},
		{admin.Status{Ready: true, Stale: 3}, "up 0ms  ready, 3 STALE\n0 services,"},
		{admin.Status{NotReady: []string{"a", "b"}, Stale: 1}, "up 0ms  NOT READY (2), 1 STALE\n0 services,"},
		{admin.Status{Ready: true, Host: "h1", Refusing: 2, Degraded: 1},
			" on h1  up 0ms  ready  ! 2 refusing clients  * 1 degraded\n0 services,"},
	}
	for _, tt := range tests {
		s := screenOf(&tt.status, nil)
		s.view.sort = 'l'
		head := unadorned(strings.Join(s.head(0, 130), "\n"))
		if !strings.Contains(head, tt.want) || !strings.Contains(head, "[l latency]") || strings.Contains(head, "[a") {
			t.Errorf("no %q in:\n%s", tt.want, head)
		}
	}
}

// On a narrow terminal, the version goes first and the state stays.
func TestTopHeadOfANarrowTerminal(t *testing.T) {
	t.Parallel()
	status := &admin.Status{Version: "v1.2.3", Host: "gate-1.example.com", Ready: true, Refusing: 3, Degraded: 4,
		Services: 300, EndpointsIn: 600}
	const state, counts = "up 0ms  ready  ! 3 refusing clients  * 4 degraded\n", "300 services, 600 in, 0 out  0 active"
	for width, want := range map[int]string{
		130: "lictor v1.2.3 on gate-1.example.com  " + state + counts + "  0/s  0 refused/s  0 B/s up  0 B/s down\n",
		80:  "lictor on gate-1.example.com  " + state + counts + "  0/s  0 refused/s  0 B/s up  0 B/s down\n",
		70:  "lictor  " + state + counts + "  0/s  0 refused/s\n",
		56:  "lictor  " + strings.TrimPrefix(state, "up 0ms  ") + counts + "  0/s  0 refused/s\n",
		30:  "lictor  ready  ! 3 refusing cl\n" + counts[:30] + "\n",
	} {
		head := unadorned(strings.Join(screenOf(status, nil).head(0, width), "\n"))
		if !strings.HasPrefix(head, want) {
			t.Errorf("width %d: got\n%s\nwant\n%s", width, head, want)
		}
	}
}

// A row is red if the service refuses clients, and yellow if it is degraded. The selected row is reversed. Without
// colours only the marks remain. Rows of a lictor that does not answer are dim, whatever their state was.
func TestTopColours(t *testing.T) {
	t.Parallel()
	in := []admin.Endpoint{{ID: "n/1", State: admin.StateIn}}
	rows := []topRow{
		{Service: &admin.Service{Name: "a-well", State: admin.StateFine, Endpoints: in}},
		{Service: &admin.Service{Name: "b-refuses", State: admin.StateRefusing}},
		{Service: &admin.Service{Name: "c-stale", State: admin.StateDegraded, Endpoints: in}},
		{Service: &admin.Service{Name: "d-chosen", State: admin.StateRefusing}},
	}
	rows[0].endpoints = []topEndpoint{{Endpoint: &in[0]}}
	for _, tt := range []struct {
		lost, plain bool
		want        [5]string
	}{
		{false, false, [5]string{"  a-well", dim, red + "! b", yellow + "* c", reverse + "! d"}},
		{false, true, [5]string{"  a-well", dim, "! b", "* c", reverse + "! d"}},
		{true, false, [5]string{dim + "  a-well", dim, dim + "! b", dim + "* c", reverse + "! d"}},
	} {
		s := screenOf(&admin.Status{Now: testNow}, rows)
		s.lost, s.plain = tt.lost, tt.plain
		s.view.selected, s.view.open = "d-chosen", map[string]bool{"a-well": true}
		lines, at := s.lines(rows, 80)
		if at != 4 {
			t.Errorf("line %d is selected, want 4", at)
		}
		for i, want := range tt.want {
			if got := lines[i+1]; !strings.HasPrefix(got, want) {
				t.Errorf("line %d: got %q, want it to begin with %q", i, got, want)
			}
		}
		if tt.plain && strings.Contains(strings.Join(lines, ""), "\x1b[3") {
			t.Errorf("colours in %q", lines)
		}
	}
}

// fifty returns the rows of fifty services, s00 to s49.
func fifty() []topRow {
	services := make([]admin.Service, 50)
	for i := range services {
		services[i].Name = fmt.Sprintf("s%02d", i)
	}
	return topRows(nil, &admin.ServicesAnswer{Services: services})
}

// The selected row stays visible while the selection moves up and down through more rows than fit.
func TestTopScrolls(t *testing.T) {
	t.Parallel()
	rows := fifty()
	s := screenOf(&admin.Status{}, rows)
	v := s.view
	firsts := map[int]bool{}
	for _, key := range strings.Fields(strings.Repeat("j ", 60) + strings.Repeat("k ", 60)) {
		v.press(key, v.shown(rows))
		screen := unadorned(s.frame(100, 14))
		if !strings.Contains(screen, v.selected) {
			t.Fatalf("%s is selected but not on the screen:\n%s", v.selected, screen)
		}
		if n := strings.Count(screen, "\n") + 1; n != 14 {
			t.Fatalf("%d lines, want 14", n)
		}
		firsts[v.first] = true
	}
	// When rows vanish, the remaining rows fill the screen.
	s.rows, v.selected, v.first = rows[:12], "s11", 40
	if screen := unadorned(s.frame(100, 14)); v.first != 2 || strings.Count(screen, "\n") != 13 {
		t.Errorf("at %d with 12 rows:\n%s", v.first, screen)
	}
	if len(firsts) != 41 {
		t.Errorf("%d positions, want 41", len(firsts))
	}
}

// Home and End select the first and the last row, and the page keys move by a screen.
func TestTopKeysThatMoveFar(t *testing.T) {
	t.Parallel()
	s := screenOf(&admin.Status{}, fifty())
	s.frame(100, 14)
	for _, step := range []struct{ key, want string }{
		{"\x1b[F", "s49"}, {"\x1b[H", "s00"}, {"\x1b[6~", "s09"}, {"\x1b[6~", "s18"}, {"\x1b[5~", "s09"},
		{"\x1bOF", "s49"}, {"\x1b[1~", "s00"}, {"\x1b[5~", "s00"}, {"\x1b[4~", "s49"}, {"\x1b[6~", "s49"},
		{"\x1bOH", "s00"}, {"G", "s49"}, {"g", "s00"},
	} {
		s.view.press(step.key, s.view.shown(s.rows))
		if screen := s.frame(100, 14); s.view.selected != step.want || !strings.Contains(screen, step.want) {
			t.Errorf("%q: got %s, want %s on:\n%s", step.key, s.view.selected, step.want, screen)
		}
	}
}

// After a change of the order the first rows are visible. They stay visible when new answers change the order, because
// the selection pulls the view only when a key moves it.
func TestTopKeepsTheTopInView(t *testing.T) {
	t.Parallel()
	rows := fifty()
	s := screenOf(&admin.Status{}, rows)
	s.view.press("\x1b[F", s.view.shown(rows))
	s.frame(100, 14)
	if s.view.first == 0 {
		t.Fatal("the last row is selected, but the first is visible")
	}
	s.view.press("a", s.view.shown(rows))
	s.frame(100, 14)
	if s.view.first != 0 || s.view.selected != "" {
		t.Errorf("after a change of the order: at %d, %q is selected", s.view.first, s.view.selected)
	}
	s.view.press("\x1b[H", s.view.shown(rows))
	s.frame(100, 14)
	chosen := s.view.selected
	for i := range rows {
		if rows[i].Name != chosen {
			rows[i].active = 5 // now all others come first
		}
	}
	if screen := s.frame(100, 14); s.view.first != 0 || strings.Contains(screen, chosen+" ") {
		t.Errorf("the view has followed %s to line %d", chosen, s.view.first)
	}
}

// Keys that move the selection do nothing without rows.
func TestTopKeysWithoutRows(t *testing.T) {
	t.Parallel()
	v := &topView{sort: 'a', open: map[string]bool{}}
	for _, key := range []string{"j", "k", "\x1b[5~", "\x1b[6~", "\x1b[H", "\x1b[F", "\r", " ", "x", "\x1b[Z", "\x1b"} {
		if v.press(key, nil) || v.selected != "" || len(v.open) != 0 || v.sort != 'a' {
			t.Errorf("%q: got %+v", key, v)
		}
	}
}

// The filter shows only services with its text in their names. Letters extend it instead of changing the order.
func TestTopFilter(t *testing.T) {
	t.Parallel()
	services := []admin.Service{{Name: "Web-api", State: admin.StateFine}, {Name: "web-db", State: admin.StateRefusing},
		{Name: "queue", State: admin.StateDegraded}}
	s := screenOf(&admin.Status{}, topRows(nil, &admin.ServicesAnswer{Services: services}))
	shown := func() (names string) {
		for _, r := range s.view.shown(s.rows) {
			names += r.Name + " "
		}
		return names
	}
	for _, step := range []struct{ keys, want, prompt string }{
		{"/", "Web-api queue web-db ", "filter: _   3 of 3"},
		{"web", "Web-api web-db ", "filter: web_   2 of 3"},
		{"-\x1b[A\x1bOHq", "", "filter: web-q_   0 of 3"}, // arrows are no text, and q does not quit
		{"\x7fd", "web-db ", "filter: web-d_   1 of 3"},
		{"\r", "web-db ", `only "web-d": 1 of 3  Esc: all`},
		{"\x1b", "Web-api queue web-db ", "? help  / filter"},
		{"p", "queue web-db ", "only not fine: 2 of 3"},
		{"/w\r", "web-db ", `only "w", not fine: 1 of 3`},
		{"p", "Web-api web-db ", `only "w": 2 of 3`},
		{"/\x15ue", "queue ", "filter: ue_   1 of 3"},
		{"\x1b", "Web-api queue web-db ", "? help  / filter"},
	} {
		for _, key := range splitKeys(step.keys) {
			if s.view.press(key, s.view.shown(s.rows)) {
				t.Fatalf("%q quits", key)
			}
		}
		screen := unadorned(s.frame(80, 24))
		if got := shown(); got != step.want || !strings.Contains(screen, step.prompt) {
			t.Errorf("after %q: got %q, want %q, and %q on:\n%s", step.keys, got, step.want, step.prompt, screen)
		}
	}
}

// The help names every order and fits a small terminal. Any key closes it.
func TestTopHelp(t *testing.T) {
	t.Parallel()
	s := screenOf(&admin.Status{}, fifty())
	if s.view.press("?", nil) {
		t.Fatal("? quits")
	}
	screen := unadorned(s.frame(80, 24))
	screen = screen[strings.Index(screen, "\norder "):]
	for _, order := range topSorts() {
		if want := fmt.Sprintf("%c %s", order.key, order.name); !strings.Contains(screen, want) {
			t.Errorf("no %q in:\n%s", want, screen)
		}
	}
	if !strings.Contains(screen, "Any key closes this help.") || strings.Contains(screen, "s00") {
		t.Errorf("got:\n%s", screen)
	}
	for _, line := range topHelp() {
		if len(line) > 80 {
			t.Errorf("wider than a terminal: %s", line)
		}
	}
	if s.view.press("\x1b", nil) || s.view.help {
		t.Error("Esc does not close the help, or quits")
	}
}
