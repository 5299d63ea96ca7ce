//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// inZone registers an instance in a zone of the region eu.
func inZone(zone string) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) { r.Locality = &api.Locality{Region: "eu", Zone: zone} }
}

// Clients stay in the zone of the agent's node as far as that is fair, and all of them with prefer_strict. A reload
// changes the preference and the zone of the host.
func TestClientsStayInTheirZone(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{HCL: `locality { region = "eu" zone = "eu-a" }`})
	near := startGreeter(t, "near")
	c.register(t, "web", "near", near.addr) // its zone is the node's
	for _, far := range []string{"f1", "f2", "f3"} {
		c.register(t, "web", far, startGreeter(t, far).addr, inZone("eu-b"))
	}
	web := freePort(t)
	config := func(top, more string) string {
		return consulBlock(c) + top + serviceAt("web", web, more, `min_available = "0%"`)
	}
	l := runLictor(t, config("", `prefer = "zone"`))
	l.awaitAnswer(t, "explain web", 0, "4 of 4 known endpoints",
		"prefers the same zone (eu/eu-a); 25% of the weight is there, and 50% of the clients stay",
		"zone: eu/eu-a, near", "zone: eu/eu-b")
	const clients = 60
	wantNear := func(want int) {
		t.Helper()
		if got := count(t, web, clients)["near"]; got != want {
			t.Errorf("%d of %d clients stay, want %d", got, clients, want)
		}
	}
	wantNear(clients / 2)
	l.awaitAnswer(t, "status web", 0, "so far 30 of 60 left")
	l.awaitAnswer(t, "validate -live "+l.file, 0, "prefers the same zone (eu/eu-a)", "eu/eu-a, near")

	l.mustReload(t, config("", "prefer = \"zone\"\n prefer_strict = true"))
	wantNear(clients)
	l.mustReload(t, config("zone = \"eu-b\"\n", `prefer = "zone"`))
	l.awaitAnswer(t, "explain web", 0, "prefers the same zone (eu-b); 75% of the weight is there, and 100% of the")
	wantNear(0)
	l.awaitAnswer(t, "events web", 0, "no longer near")
	l.mustReload(t, config("", ""))
	wantNear(clients / 4)

	l.mustReload(t, config("", `prefer = "zone"`))
	l.awaitAnswer(t, "explain web", 0, "50% of the clients stay")
	near.kill()
	load(t, web, 20, nil)
	l.awaitAnswer(t, "explain web", 0, "ejected", "0% of the weight is there, and 0% of the clients stay")
	wantNear(0)
}

// Two services use two ports of the same instances, and ask Consul for them in one query.
func TestServicesUseTwoPortsOfOneService(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	http, metrics, bare := startGreeter(t, "http"), startGreeter(t, "metrics"), startGreeter(t, "bare")
	c.register(t, "web", "two", http.addr, func(r *api.AgentServiceRegistration) {
		r.Port, r.Ports = 0, api.ServicePorts{{Name: "http", Port: int(http.addr.Port()), Default: true},
			{Name: "metrics", Port: int(metrics.addr.Port())}}
	})
	c.register(t, "web", "one", bare.addr)
	l := runLictor(t, consulBlock(c)+service("web")+service("metrics", `consul {
		service = "web"
		port    = "metrics"
	}`))
	l.awaitAnswer(t, "explain metrics", 0, "1 of 2 known endpoints",
		`port: it has no port "metrics": it registers no ports by name`)
	awaitRotation(t, l.addr(t, "web"), "bare", "http")
	for range 4 {
		if client := mustConnect(t, l.addr(t, "metrics")); client.name != "metrics" {
			t.Errorf("served by %s", client.name)
		}
	}
	l.awaitAnswer(t, fmt.Sprint("validate -live ", l.file), 0, `port "metrics"`)
}
