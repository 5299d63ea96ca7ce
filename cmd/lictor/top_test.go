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
		{Name: "new", Protocol: "tcp", Set: admin.SetNone,
			Reasons: []admin.Reason{{Text: "no endpoints are known yet"}}, Counters: admin.Counters{Connections: 1000}},
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
		EndpointsOut: 1, ConnectionsActive: 7, SessionsActive: 3, NotReady: []string{"new"}}
	return status, topRows(before, after)
}

func TestTopFrame(t *testing.T) {
	status, rows := topSample()
	got := unadorned(frame(status, rows, &topView{sort: 'a', selected: "web", open: map[string]bool{"web": true}}, 130,
		20))
	want := `
lictor v1  up 1h  NOT READY (1)   3 services, 2 in, 1 out   10 active  10/s  0 B/s up  1.0 MB/s down
sort by: n name [a active] c clients/s b bytes/s l latency f fails/s   arrows, enter: endpoints   q quit
SERVICE                        PROTO   IN  OUT  ACTIVE CLIENTS/S       UP/S     DOWN/S   LATENCY  FAILS/S  NOTE
web                              tcp    1    1       7        10        0 B     1.0 MB    2.0 ms        0  changed 1m ago
  in  n/1  10.0.0.1:80  healthy for 1m  7 active  10 picks/s  0 fails/s
  out n/2  10.0.0.2:80  drained for 1m
dns                              udp    1    0       3         0        0 B        0 B         -      2.0  changed 1m ago
new                              tcp    0    0       0         0        0 B        0 B         -        0  no endpoints are known`
	if got != want[1:] {
		t.Errorf("got:\n%s\nwant:%s", got, want)
	}
}

func TestTopFrameKeepsToTheScreen(t *testing.T) {
	status, rows := topSample()
	for _, size := range [][2]int{{40, 5}, {80, 24}, {1, 1}, {200, 4}} {
		v := &topView{sort: 'n', selected: "web", open: map[string]bool{"dns": true, "web": true}}
		text := unadorned(frame(status, rows, v, size[0], size[1]))
		lines := strings.Split(text, "\n")
		if len(lines) > max(size[1], 4) {
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
			sortTop(rows, v.sort)
			if v.press(key, rows) {
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
	if v.selected != rows[len(rows)-1].Name {
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
