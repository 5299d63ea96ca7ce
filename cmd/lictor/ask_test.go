package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

func TestWhatConsulSaysCannotDriveTheTerminal(t *testing.T) {
	now := time.Now()
	s := &admin.Service{Name: "web", Source: "x\x1b]0;title\a", Problem: "\x1b[2J", Endpoints: []admin.Endpoint{{
		ID: "n/\x1b[31mred", Address: "h\x9bost:1",
		State: admin.StateOut, Reason: "critical", Detail: "a\r\nb\u202ec", Tags: []string{"\x07"},
	}}}
	var b strings.Builder
	if err := writeExplanation(&b, now, s, errors.New("e\x1b"),
		[]admin.Event{{Service: "w\x1b", Text: "t\x1b"}}); err != nil {
		t.Fatal(err)
	}
	if err := writeService(&b, now, s); err != nil {
		t.Fatal(err)
	}
	if err := writeStatus(&b, &admin.Status{Version: "\x1b"}, []admin.Service{*s}); err != nil {
		t.Fatal(err)
	}
	if err := writeConnections(&b, []admin.Connection{
		{Service: "\x1b", Endpoint: "\x1b", Address: "\x1b"},
	}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(b.String(), "\x1b\a\r\u009b\u202e"); i >= 0 {
		t.Errorf("a control character at %q", b.String()[max(0, i-20):i+1])
	}
}

func TestStatusOfAServiceShowsItsDescriptors(t *testing.T) {
	s := &admin.Service{
		Descriptors: admin.Descriptors{Taken: 4, Floor: 20, Ceiling: 300},
		Counters:    admin.Counters{DescriptorWaits: 9},
	}
	const shares = "4 now, 20 at any time, 300 at most"
	for protocol, want := range map[string]string{"tcp": shares + "; clients had to wait 9 times\n",
		"udp": shares + "\n"} {
		s.Protocol = protocol
		var b strings.Builder
		if err := writeService(&b, time.Now(), s); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %q in:\n%s", protocol, want, b.String())
		}
	}
}

func TestStatusSaysWhatTheSystemDenies(t *testing.T) {
	var b strings.Builder
	denied := []admin.Denied{{Call: "splice", Error: "not permitted", Instead: "bulk is copied"}}
	if err := writeStatus(&b, &admin.Status{Denied: denied}, nil); err != nil {
		t.Fatal(err)
	}
	const want = "\nthe system denies splice (not permitted): bulk is copied\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("got %q, want it to contain %q", b.String(), want)
	}
}

func TestBriefAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0ms", 350 * time.Millisecond: "350ms", 90 * time.Second: "1m",
		47 * time.Hour: "47h", 49 * time.Hour: "2d"} {
		if got := brief(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 999.6: "1.0 kB", 1500: "1.5 kB",
		123456789: "123 MB"} {
		if got := size(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
}
