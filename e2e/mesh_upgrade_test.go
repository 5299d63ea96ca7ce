//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A successor knows which instances deny connections before it has any, and says when one answers again.
func TestMeshUpgradeHandsDenialsOver(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	var denies atomic.Bool
	denies.Store(true)
	s := c.startMeshServer(t, "billing", "a", func(config *tls.Config) {
		config.VerifyConnection = func(tls.ConnectionState) error {
			if denies.Load() {
				return errors.New("an intention denies it")
			}
			return nil
		}
	})
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	d := found(t, consulBlock(c)+meshService("billing"))
	billing := d.addr(t, "billing")
	says := func(want string) error {
		if _, out := d.command(t, "explain", "billing"); !strings.Contains(out, want) {
			return fmt.Errorf("no %q in:\n%s", want, out)
		}
		return nil
	}
	const denied = "denied by the destination"
	eventually(t, "lictor says that its clients are denied", func() error {
		_, _ = ask(t.Context(), billing)
		return says(denied)
	})
	d.upgrade(t)
	eventually(t, "the successor says so", func() error { return says(denied) })
	denies.Store(false)
	awaitRotation(t, billing, "a")
	eventually(t, "the successor says that it is over", func() error {
		if err := says(denied); err == nil {
			return errors.New("clients are denied")
		}
		if _, out := d.command(t, "events", "-n", "1000"); !strings.Contains(out, "  allowed  ") {
			return fmt.Errorf("no event of it in:\n%s", out)
		}
		return nil
	})
}
