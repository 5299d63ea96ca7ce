//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

func TestConnectionsRotateOverThreeInstances(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 100, "b": 100, "c": 100})
}

func TestWeightsShareConnections(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for name, w := range map[string]int{"a": 3, "b": 1, "c": 1} {
		c.register(t, "web", name, startEcho(t, name).addr, weight(w))
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 180, "b": 60, "c": 60})
}

func TestInstanceThatLeavesKeepsItsConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		leave, enter func(*testing.T, *consul)
	}{
		{"deregistered",
			func(t *testing.T, c *consul) { c.deregister(t, "b") },
			nil},
		{"critical",
			func(t *testing.T, c *consul) { c.setHealth(t, "b", api.HealthCritical) },
			func(t *testing.T, c *consul) { c.setHealth(t, "b", api.HealthPassing) }},
		{"in maintenance",
			func(t *testing.T, c *consul) {
				must(t, c.api.Agent().EnableServiceMaintenance("b", "as the test wants it"))
			},
			func(t *testing.T, c *consul) { must(t, c.api.Agent().DisableServiceMaintenance("b")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startConsul(t, testconsul.Options{})
			for _, name := range []string{"a", "b", "c"} {
				c.register(t, "web", name, startEcho(t, name).addr, checked)
			}
			l := runLictor(t, consulBlock(c)+service("web"))
			web := l.addr(t, "web")
			open := map[string]*client{}
			for range 3 {
				conn := mustConnect(t, web)
				open[conn.name] = conn
			}
			if len(open) != 3 {
				t.Fatalf("three connections reached %d instances", len(open))
			}

			tt.leave(t, c)
			awaitRotation(t, web, "a", "c")
			wantCounts(t, web, map[string]int{"a": 30, "c": 30})
			for name, conn := range open {
				if err := conn.echo("still there?"); err != nil {
					t.Errorf("the connection to %s that was open: %v", name, err)
				}
			}
			if tt.enter != nil {
				tt.enter(t, c)
				awaitRotation(t, web, "a", "b", "c")
			}
		})
	}
}

func TestNewInstanceJoins(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	wantCounts(t, web, map[string]int{"a": 5})
	c.register(t, "web", "b", startEcho(t, "b").addr)
	awaitRotation(t, web, "a", "b")
	wantCounts(t, web, map[string]int{"a": 30, "b": 30})
}

func TestTagsAndFilterChooseInstances(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr, tags("v1"), meta("version", "1"))
	c.register(t, "web", "b", startEcho(t, "b").addr, tags("v2"), meta("version", "2"))
	c.register(t, "web", "c", startEcho(t, "c").addr, tags("v2", "canary"), meta("version", "2"))
	c.register(t, "api", "d", startEcho(t, "d").addr)
	l := runLictor(t, consulBlock(c)+
		service("web")+
		service("tag", `consul {`, `  service = "web"`, `  tags = ["v2"]`, `}`)+
		service("both-tags", `consul {`, `  service = "web"`, `  tags = ["v2", "canary"]`, `}`)+
		service("filter", `consul {`, `  service = "web"`, "  filter = \"Service.Meta.version == `1`\"", `}`)+
		service("tag-and-filter", `consul {`, `  service = "web"`, `  tags = ["v2"]`,
			`  filter = "not \"canary\" in Service.Tags"`, `}`)+
		service("other-name", `consul {`, `  service = "api"`, `}`))
	for _, tt := range []struct {
		service string
		want    map[string]int
	}{
		{"web", map[string]int{"a": 10, "b": 10, "c": 10}},
		{"tag", map[string]int{"b": 10, "c": 10}},
		{"both-tags", map[string]int{"c": 10}},
		{"filter", map[string]int{"a": 10}},
		{"tag-and-filter", map[string]int{"b": 10}},
		{"other-name", map[string]int{"d": 10}},
	} {
		t.Run(tt.service, func(t *testing.T) { wantCounts(t, l.addr(t, tt.service), tt.want) })
	}
}

func TestDeadEndpointIsNoticedByNoClient(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	dead, b, d := deadAddr(t), startEcho(t, "b").addr, startEcho(t, "d").addr
	// Consul sorts by ID, so the dead instances are the first and the third.
	c.register(t, "web", "a", dead)
	c.register(t, "web", "b", b)
	c.register(t, "web", "c", deadAddr(t))
	c.register(t, "web", "d", d)
	l := runLictor(t, consulBlock(c)+service("web"))
	counts := count(t, l.addr(t, "web"), 100)
	if counts["b"]+counts["d"] != 100 {
		t.Errorf("got %v", counts)
	}
}

func TestStaticEndpointsNeedNoConsul(t *testing.T) {
	t.Parallel()
	a, b := startEcho(t, "a").addr, startEcho(t, "b").addr
	l := runLictor(t, service("legacy", "static {", fmt.Sprintf("  endpoints = [%q, \"localhost:%d\"]", a, b.Port()),
		"}"))
	wantCounts(t, l.addr(t, "legacy"), map[string]int{"a": 10, "b": 10})
}
