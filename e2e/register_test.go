//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// own waits until all checks of the service lictor have a status. With "gone" it waits until there is no such service.
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
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	head := fmt.Sprintf("shutdown_grace = \"10m\"\nconsul {\n  address  = %q\n  register = true\n}\n", c.HTTP)
	l := runLictor(t, head+service("web", endpoints(startEcho(t, "a"))))
	c.own(t, api.HealthPassing)
	s, _, err := c.api.Agent().Service("lictor", nil)
	must(t, err)
	if s.Meta["version"] == "" || !strings.HasPrefix(s.Meta["admin"], "unix://") {
		t.Errorf("meta: got %v, want the version and where the admin API is", s.Meta)
	}

	must(t, c.api.Agent().ServiceDeregister("lictor")) // as if the agent had lost it
	c.own(t, api.HealthPassing)

	conn := mustConnect(t, l.addr(t, "web"))
	l.terminate(t)
	c.own(t, api.HealthMaint)
	must(t, conn.echo("still in flight"))
	must(t, conn.Close())
	l.exits(t, 0)
	c.own(t, "gone")
}

// If the agent can reach the admin API, it checks whether Lictor is ready. The registration moves with the API.
func TestRegistrationIsCheckedByTheAgent(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	api1 := freePort(t)
	head := fmt.Sprintf("consul {\n  address  = %q\n  register = true\n}\n", c.HTTP)
	web := service("web", endpoints(startEcho(t, "a")))
	l := runLictor(t, head+web)
	c.own(t, api.HealthPassing)
	l.mustReload(t, head+fmt.Sprintf("admin { listen = %q }\n", api1)+web)
	eventually(t, "the agent asks /readyz", func() error {
		checks, err := c.api.Agent().Checks()
		if err != nil {
			return err
		}
		one := checks["lictor:ready"]
		if one == nil || one.Type != "http" || one.Status != api.HealthPassing ||
			!strings.Contains(one.Output, "ready") {
			return fmt.Errorf("got %+v", one)
		}
		return nil
	})
	s, _, err := c.api.Agent().Service("lictor", nil)
	must(t, err)
	if s.Meta["admin"] != api1.String() {
		t.Errorf("meta: got %v, want admin %v", s.Meta, api1)
	}
	must(t, c.api.Agent().ServiceDeregister("lictor")) // as if the agent had lost it
	c.own(t, api.HealthPassing)
}

func TestRegistrationFollowsAReload(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	web := service("web", endpoints(startEcho(t, "a")))
	l := runLictor(t, consulBlock(c)+web)
	l.mustReload(t, fmt.Sprintf("consul {\n  address  = %q\n  register = true\n}\n", c.HTTP)+web)
	c.own(t, api.HealthPassing)
	l.mustReload(t, consulBlock(c)+web)
	c.own(t, "gone")
}
