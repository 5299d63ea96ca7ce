//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A Consul that restarts without its data answers that there are no instances. The instances live, and register again.
func TestConsulBackWithoutItsMemoryCostsNothing(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instances := map[string]*instance{}
	register := func() {
		for _, name := range []string{"a", "b", "c"} {
			if instances[name] == nil {
				instances[name] = startEcho(t, name)
			}
			c.register(t, "web", name, instances[name].addr)
		}
	}
	register()
	l := runLictor(t, consulBlock(c)+service("web", `consul { drop_hold = "1m" }`))
	clients := startWorkers(t, l.addr(t, "web"), 20)
	clients.awaitRounds(t, 20)
	c.Kill()
	must(t, c.Restart(t.Context()))
	held := l.awaitLog(t, 0, complaint("vanished at once"))
	if held.field("vanished") != "3" || held.field("left") != "0" {
		t.Errorf("got %v", held)
	}
	clients.awaitRounds(t, 50)
	register()
	l.awaitLog(t, 0, func(e entry) bool {
		return e.field("@message") == "no vanished instances are kept in use any "+
			"more"
	})
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
	awaitRotation(t, l.addr(t, "web"), "a", "b", "c")
}

// All checks fail at once, as if they depended on the same thing. The instances live.
func TestAllCriticalAtOnceIsHeldForAWhile(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	names := []string{"a", "b"}
	for _, name := range names {
		c.register(t, "web", name, startEcho(t, name).addr, checked)
	}
	l := runLictor(t, consulBlock(c)+service("web", `consul { drop_hold = "5s" }`))
	web := l.addr(t, "web")
	c.setHealth(t, "a", api.HealthCritical) // a single failure is believed
	awaitRotation(t, web, "b")
	c.setHealth(t, "b", api.HealthCritical)
	l.awaitLog(t, 0, complaint("vanished at once"))
	l.awaitAnswer(t, "events web", 0, "out", `test/a: check "Service 'web' check" is critical`, "held",
		`test/b: check "Service 'web' check" is critical`)
	wantCounts(t, web, map[string]int{"b": 5})
	c.setHealth(t, "a", api.HealthPassing)
	awaitRotation(t, web, "a")
}

func TestNothingIsHeldIfSoConfigured(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web", `consul { drop_hold = "0s" }`))
	c.deregister(t, "a")
	eventually(t, "no instance", func() error {
		if name, err := ask(t.Context(), l.addr(t, "web")); err == nil {
			return fmt.Errorf("%s answers", name)
		}
		return nil
	})
}

// An operator puts a whole node into maintenance. That is intended, so nothing is held, and clients notice nothing.
func TestNodeInMaintenanceIsLeftAtOnce(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	other := startEcho(t, "other")
	_, err := c.api.Catalog().Register(&api.CatalogRegistration{
		Node: "elsewhere", Address: "127.0.0.2",
		Service: &api.AgentService{ID: "other", Service: "web", Address: other.addr.Addr().String(),
			Port: int(other.addr.Port())},
	}, nil)
	must(t, err)
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a", "b", "c", "other")
	clients := startWorkers(t, web, 20)
	clients.awaitRounds(t, 20)
	must(t, c.api.Agent().EnableNodeMaintenance("new disk"))
	awaitRotation(t, web, "other")
	must(t, c.api.Agent().DisableNodeMaintenance())
	awaitRotation(t, web, "a", "b", "c", "other")
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
	for _, e := range l.log() {
		if complaint("vanished")(e) {
			t.Errorf("held: %v", e)
		}
	}
}

func TestWarningsCountIfTheyAreAdmitted(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked, func(r *api.AgentServiceRegistration) {
			r.Weights = &api.AgentWeights{Passing: 4, Warning: 1}
		})
	}
	c.setHealth(t, "b", api.HealthWarning)
	l := runLictor(t, consulBlock(c)+service("web", `consul { statuses = ["passing", "warning"] }`)+service("strict",
		`consul { service = "web" }`))
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 16, "b": 4})
	wantCounts(t, l.addr(t, "strict"), map[string]int{"a": 10})
	c.setHealth(t, "b", api.HealthPassing)
	awaitRotation(t, l.addr(t, "strict"), "a", "b")
	awaitRotation(t, l.addr(t, "web"), "a", "b") // each service has its own query, so this says nothing about the other
	wantCounts(t, l.addr(t, "web"), map[string]int{"a": 10, "b": 10})
	c.setHealth(t, "b", api.HealthCritical)
	awaitRotation(t, l.addr(t, "strict"), "a")
	awaitRotation(t, l.addr(t, "web"), "a")
}

// An instance that loses its tag is not held, because an operator meant that. A deregistered one is held for a moment,
// and the log has one line about it.
func TestInstanceThatLosesItsTagIsLeftAtOnce(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a := startEcho(t, "a")
	primary := func(r *api.AgentServiceRegistration) { r.Tags = []string{"primary"} }
	c.register(t, "db", "a", a.addr, primary)
	l := runLictor(t, consulBlock(c)+service("db",
		`consul {`+"\n"+`tags = ["primary"]`+"\n"+`drop_hold = "1h"`+"\n"+`}`))
	db := l.addr(t, "db")
	awaitRotation(t, db, "a")
	c.register(t, "db", "a", a.addr)
	eventually(t, "no instance", func() error {
		if name, err := ask(t.Context(), db); err == nil {
			return fmt.Errorf("%s answers", name)
		}
		return nil
	})
	c.register(t, "db", "a", a.addr, primary)
	awaitRotation(t, db, "a")
	c.deregister(t, "a")
	l.awaitLog(t, 0, func(e entry) bool {
		return e.field("@message") == "the only instance was deregistered, it stays in use for a moment"
	})
	wantCounts(t, db, map[string]int{"a": 5})
	b := startEcho(t, "b")
	c.register(t, "db", "b", b.addr, primary)
	awaitRotation(t, db, "b") // one instance has replaced another
	for _, e := range l.log() {
		if complaint("vanished")(e) {
			t.Errorf("logged too: %v", e)
		}
	}
}
