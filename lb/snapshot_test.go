package lb

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{Policy: PolicyRoundRobin, SlowStart: 10 * time.Second, MaxPerEndpoint: 2,
			MaxConnections: 3, MaxQueue: 5, QueueTimeout: time.Minute}, named(1, 1, 1, 1, 1)...)
		b.Configure("later", Options{}) // nothing is known about this service yet
		b.OnUpdate([]Endpoints{{Service: "db", Endpoints: named(7)}})
		fails(t, b, "B", Refused)
		fails(t, b, "E", Unreachable)
		time.Sleep(2 * time.Second)
		trial := member(t, b, "B")
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: append(named(1, 1, 1, 1, 1), endpoint("X", 3))}})
		time.Sleep(4 * time.Second)
		fails(t, b, "C", Reset, Reset)
		for range 2 {
			member(t, b, "A")
		}
		w, err := b.Wait("web", client, Tried{}, func(*Member, error) {})
		if err != nil {
			t.Fatal(err)
		}
		all := b.Snapshot()
		if len(all) != 2 || all[0].Service != "db" || all[1].Service != "web" {
			t.Fatalf("got %+v, want db and web", all)
		}
		s := all[1]
		if s.Policy != PolicyRoundRobin || s.Open != 3 || s.Waiting != 1 || s.Panicking {
			t.Errorf("got %+v", s)
		}
		for i, want := range []struct {
			id    string
			state State
			open  int64
			cause Cause
		}{{"A", StateFull, 2, 0}, {"B", StateTrial, 1, Refused}, {"C", StateEjected, 0, Reset}, {"D", StateIn, 0, 0},
			{"E", StateTroubled, 0, 0}, {"X", StateSlow, 0, 0}} {
			e := s.Endpoints[i]
			if e.ID != want.id || e.State != want.state || e.Open != want.open || e.Cause != want.cause {
				t.Errorf("got %s %v %d open, %v, want %+v", e.ID, e.State, e.Open, e.Cause, want)
			}
		}
		if c := s.Endpoints[2]; c.Failures != 2 || c.Fails != 2 || c.Ejections != 1 || c.TryIn <= 0 ||
			c.TryIn > 1200*time.Millisecond || c.Picks == 0 {
			t.Errorf("got %+v", c)
		}
		if x := s.Endpoints[5]; x.Share != 0.4 || x.Weight != 3 {
			t.Errorf("got %+v, want a share of 0.4 after 4 s of 10", x)
		}
		w.Cancel()
		trial.Done()
	})
}

func TestSnapshotOfAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balanced(Options{}, named(1, 1)...)
		for _, id := range []string{"A", "B"} {
			fails(t, b, id, Refused)
		}
		if s := b.Snapshot()[0]; !s.Panicking || s.Endpoints[0].State != StateEjected || s.Endpoints[1].TryIn <= 0 {
			t.Errorf("got %+v, want Panicking with two ejected endpoints", s)
		}
	})
}

// A service that ignores ejections shows no endpoint as ejected, although another service has ejected its address.
func TestSnapshotOfAServiceThatIgnoresEjections(t *testing.T) {
	b := NewRoundRobin()
	b.Configure("blind", Options{MaxFails: -1})
	for _, name := range []string{"blind", "web"} {
		b.OnUpdate([]Endpoints{{Service: name, Endpoints: named(1)}})
	}
	m, err := b.NextEndpoint("web", client, Tried{})
	if err != nil {
		t.Fatal(err)
	}
	m.Failed(Refused)
	for _, s := range b.Snapshot() {
		if ejected := s.Endpoints[0].State == StateEjected; ejected != (s.Service == "web") || s.Panicking != ejected {
			t.Errorf("%s: got %v, panicking %v", s.Service, s.Endpoints[0].State, s.Panicking)
		}
	}
}

// The snapshot has the error of the last failure if that was a TLS handshake, until the endpoint is reached.
func TestSnapshotSaysWhyTheHandshakeFailed(t *testing.T) {
	failed := func(text string) error { return fmt.Errorf("dial: %w: %w", ErrHandshake, errors.New(text)) }
	long := strings.Repeat("x", maxWhy)
	for _, tt := range []struct {
		name    string
		happens func(m *Member)
		want    string
	}{
		{"once", func(m *Member) { m.FailedWith(Handshake, failed("it is another")) }, "it is another"},
		{"ejected", func(m *Member) {
			m.FailedWith(Handshake, failed("it is one"))
			m.FailedWith(Handshake, failed("it is another"))
		}, "it is another"},
		{"in a check", func(m *Member) { m.checkFailed(Handshake, failed("it is another")) }, "it is another"},
		{"no TLS at all", func(m *Member) { m.FailedWith(Handshake, errors.New("refuses TLS")) }, "refuses TLS"},
		{"another cause", func(m *Member) { m.FailedWith(Unreachable, failed("no")) }, ""},
		{"another cause later", func(m *Member) {
			m.FailedWith(Handshake, failed("no"))
			m.FailedWith(Refused, syscall.ECONNREFUSED)
		}, ""},
		{"connected later", func(m *Member) { m.FailedWith(Handshake, failed("no")); m.Connected() }, ""},
		{"connected after a reset", func(m *Member) {
			m.Failed(Reset)
			m.FailedWith(Handshake, failed("no"))
			m.Connected()
		}, ""},
		{"reached later", func(m *Member) { m.FailedWith(Handshake, failed("no")); m.Reached() }, ""},
		{"as long as it may be", func(m *Member) { m.FailedWith(Handshake, failed(long)) }, long},
		{"too long", func(m *Member) { m.FailedWith(Handshake, failed(long+"x")) }, long[3:] + "..."},
		{"cut in a character", func(m *Member) { m.FailedWith(Handshake, failed(long[4:]+"éxé")) }, long[4:] + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := balanced(Options{}, named(1, 1)...)
			tt.happens(member(t, b, "A"))
			if got := b.Snapshot()[0].Endpoints[0].Why; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
