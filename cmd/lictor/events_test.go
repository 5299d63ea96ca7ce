package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

func TestEventLines(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := writeEvents(&b, "> ", []admin.Event{
		{Time: testNow, Kind: "undrained", Service: "web", Endpoint: "n/1", Text: "n/1 gets clients again"},
		{Time: testNow, Kind: "reload", Text: "bad\x1b[2J"},
	})
	if err != nil {
		t.Fatal(err)
	}
	when := testNow.Local().Format(time.DateTime)
	equal(t, b.String(), "> "+when+"  undrained  web  n/1 gets clients again\n"+
		"> "+when+"  reload     -  bad\ufffd[2J\n")
}

// events -f asks for events after the last one it has, of one service if one is named, until lictor ends.
func TestEventsAreFollowed(t *testing.T) {
	t.Parallel()
	event := func(text string) []admin.Event { return []admin.Event{{Service: "a b", Kind: "left", Text: text}} }
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status":                             admin.Status{},
		"GET /v1/services/a%20b":                     admin.Service{Name: "a b"},
		"GET /v1/events?limit=7&service=a+b":         admin.EventsAnswer{Next: 4, Events: event("one")},
		"GET /v1/events?wait=50&after=4&service=a+b": admin.EventsAnswer{Next: 5},
		"GET /v1/events?wait=50&after=5&service=a+b": admin.EventsAnswer{Next: 6, Events: event("two")},
		"GET /v1/events?wait=50&after=6&service=a+b": nil,
	})
	out, said := lictor(t, exitFailed, "events", "-f", "-n", "7", "-json", "-admin", f.address, "a b")
	equal(t, said, "lictor events: lictor has ended\n")
	var texts []string
	for line := range strings.Lines(out) {
		var e admin.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("got %s: %v", line, err)
		}
		texts = append(texts, e.Text)
	}
	if want := []string{"one", "two"}; !slices.Equal(texts, want) {
		t.Errorf("got %q, want %q", texts, want)
	}

	out, _ = lictor(t, exitOK, "events", "-n", "7", "-admin", f.address, "a b")
	if n := strings.Count(out, "\n"); n != 1 {
		t.Errorf("%d lines without -f, want 1:\n%s", n, out)
	}
}

func TestEventsOfAnUnknownService(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}})
	_, said := lictor(t, exitFailed, "events", "-admin", f.address, "web")
	equal(t, said, "lictor events: there is no /v1/services/web\n")
	if got := f.requests(); slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "events") }) {
		t.Errorf("events were requested for an unknown service: %s", got)
	}
}
