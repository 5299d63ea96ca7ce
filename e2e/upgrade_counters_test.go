//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A serviceFigures is what Lictor says about a service. Two values are equal if all figures are.
type serviceFigures struct {
	All    trafficFigures `json:"counters"` // both paths
	Kernel trafficFigures `json:"kernel"`
}

type trafficFigures struct {
	Connections int64 `json:"connections"`
	Failed      int64 `json:"dials_failed"`
	Up          int64 `json:"bytes_up"`
	Down        int64 `json:"bytes_down"`
	Cut         int64 `json:"ended_left"`
}

// figures returns what the process that serves now says about all services.
func (d *dynasty) figures(t testing.TB) map[string]serviceFigures {
	t.Helper()
	_, text := d.command(t, "status", "-json")
	var all struct {
		Services []struct {
			Name string `json:"name"`
			serviceFigures
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	by := map[string]serviceFigures{}
	for _, s := range all.Services {
		by[s.Name] = s.serviceFigures
	}
	return by
}

// did counts what clients of a service do.
type did struct{ connections, failed, up, down atomic.Int64 }

// connect connects, sends a line of some length, and waits until it comes back.
func (d *did) connect(t testing.TB, to netip.AddrPort, length int) error {
	c, err := connect(t.Context(), to)
	if errors.Is(err, syscall.ECONNREFUSED) {
		d.failed.Add(1)
	}
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	d.connections.Add(1)
	d.down.Add(int64(len(c.name) + 1))
	return d.echo(c, length)
}

func (d *did) echo(c *client, length int) error {
	d.up.Add(int64(length + 1))
	d.down.Add(int64(length + 1))
	return c.echo(strings.Repeat("x", length))
}

func (d *did) figures() trafficFigures {
	return trafficFigures{Connections: d.connections.Load(), Failed: d.failed.Load(), Up: d.up.Load(),
		Down: d.down.Load()}
}

// The counters of a service go on over upgrades. They include what earlier processes count after they were replaced,
// and what processes have counted that have ended.
func TestUpgradesKeepTheCounters(t *testing.T) {
	t.Parallel()
	d := found(t, service("web", endpoints(startEcho(t, "a"))))
	web := d.addr(t, "web")
	var done did
	var kept []*client
	for range 3 {
		must(t, done.connect(t, web, 100))
		c := mustConnect(t, web)
		kept = append(kept, c)
		done.connections.Add(1)
		done.down.Add(int64(len(c.name) + 1))
		d.upgrade(t)
		for _, one := range kept {
			must(t, done.echo(one, 1000))
		}
	}
	agree := func(when string) {
		t.Helper()
		eventually(t, "all that clients did is counted, "+when, func() error {
			if got, want := d.figures(t)["web"].All, done.figures(); got != want {
				return fmt.Errorf("got %+v, want %+v", got, want)
			}
			return nil
		})
	}
	agree("while old processes are open")
	must(t, kept[1].Close())
	must(t, done.echo(kept[2], 1000))
	must(t, kept[0].Close())
	must(t, kept[2].Close())
	agree("when they have ended")
	d.upgrade(t)
	agree("after another upgrade")
}
