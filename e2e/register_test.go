//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// own waits until the service lictor has checks of a status; "gone": until there is none.
func (c *consul) own(t *testing.T, status string) {
	t.Helper()
	eventually(t, "the service lictor is "+status, func() error {
		entries, _, err := c.api.Health().Service("lictor", "", false, nil)
		if err != nil {
			return err
		}
		got := "gone"
		if len(entries) > 0 {
			got = entries[0].Checks.AggregatedStatus()
		}
		if got != status {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

func TestRegistersItself(t *testing.T) {
	c := startConsul(t, testconsul.Options{})
	head := fmt.Sprintf("shutdown_grace = \"10m\"\nconsul {\n  address  = %q\n  register = true\n}\n", c.HTTP)
	l := runLictor(t, head+service("web", endpoints(startEcho(t, "a"))))
	c.own(t, api.HealthPassing)
	s, _, err := c.api.Agent().Service("lictor", nil)
	must(t, err)
	if s.Meta["version"] == "" {
		t.Errorf("meta: got %v, want the version", s.Meta)
	}

	must(t, c.api.Agent().ServiceDeregister("lictor")) // as an agent that lost it
	c.own(t, api.HealthPassing)

	conn := mustConnect(t, l.addr(t, "web"))
	l.terminate(t)
	c.own(t, api.HealthMaint)
	must(t, conn.echo("still in flight"))
	must(t, conn.Close())
	l.exits(t, 0)
	c.own(t, "gone")
}

func TestRegistrationFollowsAReload(t *testing.T) {
	c := startConsul(t, testconsul.Options{})
	web := service("web", endpoints(startEcho(t, "a")))
	l := runLictor(t, consulBlock(c)+web)
	l.mustReload(t, fmt.Sprintf("consul {\n  address  = %q\n  register = true\n}\n", c.HTTP)+web)
	c.own(t, api.HealthPassing)
	l.mustReload(t, consulBlock(c)+web)
	c.own(t, "gone")
}
