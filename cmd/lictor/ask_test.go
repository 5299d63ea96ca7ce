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

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0ms", 0: "0ms", 350 * time.Millisecond: "350ms", 999_999 * time.Microsecond: "999ms", time.Second: "1s",
		59_999 * time.Millisecond: "59s", time.Minute: "1m", 90 * time.Second: "1m", time.Hour: "1h", 47 * time.Hour: "47h",
		48 * time.Hour: "2d", 49 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
