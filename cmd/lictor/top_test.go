package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// topSample returns the rows of two answers that are two seconds apart.
func topSample() (status *admin.Status, rows []topRow) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	changed := now.Add(-time.Minute)
	before := &admin.ServicesAnswer{Now: now.Add(-2 * time.Second), Services: []admin.Service{
		{Name: "dns", Protocol: "udp"},
		{Name: "web", Protocol: "tcp", Counters: admin.Counters{Connections: 10, Dials: 10, DialSeconds: 1,
			BytesDown: 1000},
			Endpoints: []admin.Endpoint{{ID: "n/1", Counters: &admin.EndpointCounters{Picks: 5}}}},
	}}
	after := &admin.ServicesAnswer{Now: now, Services: []admin.Service{
		{Name: "dns", Protocol: "udp", Set: admin.SetFresh, LastChange: &changed,
			Counters: admin.Counters{SessionsActive: 3, DatagramsDropped: 4},
			Endpoints: []admin.Endpoint{{ID: "n/d", Address: "10.0.0.9:53", State: admin.StateIn,
				Reason: admin.ReasonHealthy, Since: &changed}}},
		{Name: "new", Protocol: "tcp", Set: admin.SetNone, Counters: admin.Counters{Connections: 1000},
			State: admin.StateRefusing, RefusedRate: 2, RefusedRateBy: map[string]float64{"no_endpoint": 2},
			Reasons: []admin.Reason{{Kind: admin.KindNoEndpoint, Text: "none are known"}}},
		{Name: "web", Protocol: "tcp", Set: admin.SetFresh, LastChange: &changed,
			Counters: admin.Counters{Connections: 30, ConnectionsActive: 7, Dials: 20, DialSeconds: 1.02,
				BytesDown: 2_001_000},
			Endpoints: []admin.Endpoint{
				{ID: "n/1", Address: "10.0.0.1:80", State: admin.StateIn, Reason: admin.ReasonHealthy, Since: &changed,
					Counters: &admin.EndpointCounters{Picks: 25, Active: 7}},
				{ID: "n/2", Address: "10.0.0.2:80", State: admin.StateOut, Reason: admin.ReasonDrained,
					Since: &changed},
			}},
	}}
	status = &admin.Status{Version: "v1", Now: now, Started: now.Add(-time.Hour), Services: 3, EndpointsIn: 2,
		EndpointsOut: 1, ConnectionsActive: 7, SessionsActive: 3, NotReady: []string{"new"}, Refusing: 1}
	return status, topRows(before, after)
}

func TestTopFrame(t *testing.T) {
	status, rows := topSample()
	s := screenOf(status, rows)
	s.view = &topView{sort: 'a', selected: "web", open: map[string]bool{"web": true}}
	got := unadorned(s.frame(130, 20))
	want := `
lictor v1  up 1h  NOT READY (1)  ! 1 refusing clients
3 services, 2 in, 1 out  10 active  10/s  2.0 refused/s  0 B/s up  1.0 MB/s down
? help  / filter  q quit   order: n name [a active] c clients/s r refused/s b bytes/s l latency f fails/s
  SERVICE PROTO  IN OUT ACTIVE CLIENTS/S REFUSED/S     UP/S   DOWN/S  LATENCY FAILS/S NOTE
  web     tcp     1   1      7        10         0      0 B   1.0 MB   2.0 ms       0
    in  n/1  10.0.0.1:80  healthy for 1m  7 active  10 picks/s  0 fails/s
    out n/2  10.0.0.2:80  drained for 1m
  dns     udp     1   0      3         0         0      0 B      0 B        -     2.0
! new     tcp     0   0      0         0       2.0      0 B      0 B        -       0 no_endpoint; none are known`
	if got != want[1:] {
		t.Errorf("got:\n%s\nwant:%s", got, want)
	}
}

// On a narrow terminal the column of the order stays, and so does the name.
func TestTopLeavesOutColumns(t *testing.T) {
	status, rows := topSample()
	rows[0].Service.Name = "a-service-with-a-long-name"
	s := screenOf(status, rows)
	s.view.sort = 'f'
	got := unadorned(s.frame(70, 0))
	want := `
  SERVICE                     IN REFUSED/S FAILS/S NOTE
  a-service-with-a-long-name   1         0     2.0
! new                          0       2.0       0 no_endpoint; none a
`
	if !strings.Contains(got, want) {
		t.Errorf("got:\n%s\nwant:%s", got, want)
	}
}

func TestTopFrameKeepsToTheScreen(t *testing.T) {
	status, rows := topSample()
	for _, size := range [][2]int{{40, 6}, {80, 24}, {1, 1}, {200, 5}} {
		s := screenOf(status, rows)
		s.view.selected, s.view.follow = "web", true
		s.view.open["dns"], s.view.open["web"] = true, true
		text := unadorned(s.frame(size[0], size[1]))
		lines := strings.Split(text, "\n")
		if len(lines) > max(size[1], 5) {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > size[0] {
				t.Errorf("%v: %d columns: %q", size, n, line)
			}
		}
		if size[0] >= 40 && !strings.Contains(text, "web") {
			t.Errorf("%v: the selected row is not visible:\n%s", size, text)
		}
	}
}

func TestTopKeys(t *testing.T) {
	_, rows := topSample()
	v := &topView{sort: 'a', open: map[string]bool{}}
	press := func(keys ...string) {
		for _, key := range keys {
			if v.press(key, v.shown(rows)) {
				t.Fatalf("%q quits top", key)
			}
		}
	}
	press("n", "\x1b[B")
	if v.sort != 'n' || v.selected != "dns" {
		t.Errorf("got %+v", v)
	}
	press("\x1b[B", "\x1b[B", "\x1b[B", "\r")
	if v.selected != "web" || !v.open["web"] {
		t.Errorf("got %+v", v)
	}
	press("\x1b[A", "c", "\x1b[6~")
	if v.sort != 'c' || v.selected != "web" { // a page down from the top, of one line for each page so far
		t.Errorf("got %+v", v)
	}
	for _, key := range []string{"q", "\x03"} {
		if !v.press(key, rows) {
			t.Errorf("%q does not quit top", key)
		}
	}
}

func TestKeysThatComeTogetherAreToldApart(t *testing.T) {
	got := splitKeys("n\x1b[B\r\x1bOA\x1b[6~q\x1b")
	if want := []string{"n", "\x1b[B", "\r", "\x1bOA", "\x1b[6~", "q", "\x1b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
