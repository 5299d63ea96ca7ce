//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// startDatacenters starts the datacenters dc1 and dc2, and joins them.
func startDatacenters(t *testing.T) (one, two *consul) {
	t.Helper()
	one = startConsul(t, testconsul.Options{WAN: true})
	two = startConsul(t, testconsul.Options{Datacenter: "dc2", JoinWAN: one.WAN})
	eventually(t, "dc1 can ask dc2", func() error {
		_, _, err := one.api.Health().Service("web", "", true, &api.QueryOptions{Datacenter: "dc2"})
		return err
	})
	return one, two
}

func TestFailoverToAnotherDatacenterAndBack(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	one, two := startDatacenters(t)
	one.register(t, "web", "a", startEcho(t, "a").addr, checked)
	two.register(t, "web", "far", startEcho(t, "far").addr)
	l := runLictor(t, consulBlock(one)+service("web", `failback_hold = "1s"`,
		`consul { datacenters = ["dc1", "dc2"] }`))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a")
	clients := startWorkers(t, web, 20)
	clients.awaitRounds(t, 20)

	one.setHealth(t, "a", api.HealthCritical)
	awaitRotation(t, web, "far")
	l.awaitLog(t, 0, complaint("fails over"))
	one.setHealth(t, "a", api.HealthPassing)
	awaitRotation(t, web, "a")
	clients.awaitRounds(t, 20)

	// The last good set of a datacenter that cannot be reached stays in use, and is no reason for a failover.
	two.Kill()
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}

func TestStaticIsTheLastResort(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web", `failback_hold = "0s"`, "consul {}",
		fmt.Sprintf("static { endpoints = [%q] }", startEcho(t, "static").addr)))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a")
	c.deregister(t, "a")
	awaitRotation(t, web, "static")
	c.register(t, "web", "b", startEcho(t, "b").addr)
	awaitRotation(t, web, "b")
}

func TestPreparedQueryIsFollowed(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	_, _, err := c.api.PreparedQuery().Create(&api.PreparedQueryDefinition{Name: "front",
		Service: api.ServiceQuery{Service: "web", Tags: []string{"v2"}}}, nil)
	must(t, err)
	c.register(t, "web", "a", startEcho(t, "a").addr, tags("v2"))
	c.register(t, "web", "old", startEcho(t, "old").addr)
	l := runLictor(t, consulBlock(c)+service("web", `consul { prepared_query = "front" }`))
	awaitRotation(t, l.addr(t, "web"), "a")
	c.register(t, "web", "b", startEcho(t, "b").addr, tags("v2"))
	awaitRotation(t, l.addr(t, "web"), "a", "b")
}
