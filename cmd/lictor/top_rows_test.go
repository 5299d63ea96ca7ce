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
			6, 30, 300, 12, 0.001},
		{"half a second", time.Second / 2, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 10)},
			24, 120, 1200, 48, 0.001},
		{"nothing new", time.Second, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 4)}, 0, 0, 0, 0, 0},
		{"after a restart", time.Second, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 1)},
			0, 0, 0, 0, 0},
		{"no time between", 0, []admin.Service{counted("a", 4)}, []admin.Service{counted("a", 10)}, 0, 0, 0, 0, 0},
		{"a service that is new", time.Second, nil, []admin.Service{counted("a", 10)}, 0, 0, 0, 0, 0},
		{"beside one that is new", time.Second / 2, []admin.Service{counted("b", 4)},
			[]admin.Service{counted("a", 10), counted("b", 10)}, 24, 120, 1200, 48, 0.001},
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
	for width, want := range map[int]int{0: 14, 80: 14, 114: 14, 120: 20, 140: 40, 300: 40} {
		if got := nameWidth(width); got != want {
			t.Errorf("%d columns: got %d for names, want %d", width, got, want)
		}
	}
}

func TestTopHead(t *testing.T) {
	t.Parallel()
	v := &topView{sort: 'l', open: map[string]bool{}}
	tests := []struct {
		status admin.Status
		want   string
	}{
		{admin.Status{Ready: true}, "up 0ms  ready   0 services"},
		{admin.Status{Ready: true, Stale: 3}, "up 0ms  ready, 3 STALE   0 services"},
		{admin.Status{NotReady: []string{"a", "b"}, Stale: 1}, "up 0ms  NOT READY (2), 1 STALE   0 services"},
	}
	for _, tt := range tests {
		head := unadorned(strings.Join(topHead(&tt.status, nil, v, 130), "\n"))
		if !strings.Contains(head, tt.want) || !strings.Contains(head, "[l latency]") || strings.Contains(head, "[a") {
			t.Errorf("no %q in:\n%s", tt.want, head)
		}
	}
}

// A row is red if the service has no endpoint in, a stale source, or failures. The selected row is reversed.
func TestTopColours(t *testing.T) {
	t.Parallel()
	in := []admin.Endpoint{{ID: "n/1", State: admin.StateIn}}
	rows := []topRow{
		{Service: &admin.Service{Name: "well", Endpoints: in}},
		{Service: &admin.Service{Name: "none"}},
		{Service: &admin.Service{Name: "stale", Endpoints: in, StaleSince: before(time.Minute)}},
		{Service: &admin.Service{Name: "fails", Endpoints: in}, fails: 0.1},
		{Service: &admin.Service{Name: "chosen"}},
	}
	rows[0].endpoints = []topEndpoint{{Endpoint: &in[0]}}
	v := &topView{selected: "chosen", open: map[string]bool{"well": true}}
	lines, at := topLines(testNow, rows, v, 80)
	if at != 5 {
		t.Errorf("line %d is selected, want 5", at)
	}
	for i, want := range []string{"", dim, red, red, red, reverse} {
		if got := lines[i][:len(want)]; got != want || want == "" && strings.Contains(lines[i], "\x1b") ||
			want != "" && !strings.HasSuffix(lines[i], plainText) {
			t.Errorf("line %d: got %q, want it to begin with %q", i, lines[i], want)
		}
	}
}

// The selected row stays visible while the selection moves up and down through more rows than fit.
func TestTopScrolls(t *testing.T) {
	t.Parallel()
	services := make([]admin.Service, 50)
	for i := range services {
		services[i].Name = fmt.Sprintf("s%02d", i)
	}
	rows := topRows(nil, &admin.ServicesAnswer{Services: services})
	v := &topView{sort: 'n', open: map[string]bool{}}
	firsts := map[int]bool{}
	for _, key := range strings.Fields(strings.Repeat("j ", 60) + strings.Repeat("k ", 60)) {
		v.press(key, rows)
		screen := unadorned(frame(&admin.Status{}, rows, v, 100, 13))
		if !strings.Contains(screen, v.selected) {
			t.Fatalf("%s is selected but not on the screen:\n%s", v.selected, screen)
		}
		if n := strings.Count(screen, "\n") + 1; n != 13 {
			t.Fatalf("%d lines, want 13", n)
		}
		firsts[v.first] = true
	}
	// When rows vanish, the remaining rows fill the screen.
	v.selected, v.first = "s11", 40
	if screen := unadorned(frame(&admin.Status{}, rows[:12], v, 100, 13)); v.first != 2 ||
		strings.Count(screen, "\n") != 12 {
		t.Errorf("at %d with 12 rows:\n%s", v.first, screen)
	}
	v.selected, v.first = "s00", 0
	if len(firsts) != 41 || v.selected != "s00" || v.first != 0 {
		t.Errorf("%d positions, want 41; at %s, %d", len(firsts), v.selected, v.first)
	}
}

// Keys that move the selection do nothing without rows.
func TestTopKeysWithoutRows(t *testing.T) {
	t.Parallel()
	v := &topView{sort: 'a', open: map[string]bool{}}
	for _, key := range []string{"j", "k", "\x1b[5~", "\x1b[6~", "\r", " ", "x", "\x1b[Z"} {
		if v.press(key, nil) || v.selected != "" || len(v.open) != 0 || v.sort != 'a' {
			t.Errorf("%q: got %+v", key, v)
		}
	}
	if !v.press("\x1b", nil) {
		t.Error("escape does not quit top")
	}
}
