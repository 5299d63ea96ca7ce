//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
)

// connects makes a connection, closes it, and returns an error unless it was served.
func connects(t *testing.T, addr netip.AddrPort) func() error {
	return func() error { _, err := ask(t.Context(), addr); return err }
}

// mustBeFull fails the test unless a connection is refused.
func mustBeFull(t *testing.T, when string, addr netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := connect(ctx, addr); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: got %v, want a reset", when, err)
	}
}

// A limit counts the connections of a process and of its predecessors together.
func TestLimitsHoldOverUpgrades(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"max_connections_per_endpoint", "max_connections", "max_connections_per_client"} {
		t.Run(limit, func(t *testing.T) {
			d := found(t, service("web", endpoints(startEcho(t, "a")), limit+" = 4"))
			web, first := d.addr(t, "web"), d.Pid()
			oldest := []*client{mustConnect(t, web), mustConnect(t, web)}
			d.upgrade(t)
			second := []*client{mustConnect(t, web), mustConnect(t, web)}
			mustBeFull(t, "after an upgrade", web)
			d.upgrade(t)
			mustBeFull(t, "after two upgrades", web)

			// The process in the middle ends. The oldest one then tells the newest one how many connections it has.
			for _, c := range second {
				must(t, c.Close())
			}
			for range 2 {
				eventually(t, "room for what has ended in the second process", func() error {
					c, err := connect(t.Context(), web)
					if err == nil {
						t.Cleanup(func() { _ = c.Close() })
					}
					return err
				})
			}
			mustBeFull(t, "with two in the oldest and in the newest process", web)
			must(t, oldest[0].Close())
			eventually(t, "room for one of the oldest process", connects(t, web))
			must(t, oldest[1].echo("still here"))

			must(t, syscall.Kill(first, syscall.SIGKILL))
			eventually(t, "room for what the oldest process had", func() error {
				var all []*client
				defer func() {
					for _, c := range all {
						_ = c.Close()
					}
				}()
				for range 2 {
					c, err := connect(t.Context(), web)
					if err != nil {
						return fmt.Errorf("with %d more: %w", len(all), err)
					}
					all = append(all, c)
				}
				return nil
			})
		})
	}
}
