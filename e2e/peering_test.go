//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// startPeers starts two clusters. The first has a peering "far" with the second, and the second exports its service
// web.
func startPeers(t *testing.T) (near, far *consul) {
	t.Helper()
	near = startConsul(t, testconsul.Options{Peering: true})
	far = startConsul(t, testconsul.Options{Peering: true, Datacenter: "dc2", Node: "far"})
	_, _, err := far.api.ConfigEntries().Set(&api.ExportedServicesConfigEntry{Name: "default",
		Services: []api.ExportedService{
			{Name: "web", Consumers: []api.ServiceConsumer{{Peer: "near"}}},
		}}, nil)
	must(t, err)
	var token *api.PeeringGenerateTokenResponse
	eventually(t, "a token of the far cluster", func() error { // the cluster first makes a certificate authority
		token, _, err = far.api.Peerings().GenerateToken(t.Context(),
			api.PeeringGenerateTokenRequest{PeerName: "near"}, nil)
		return err
	})
	eventually(t, "the peering is established", func() error {
		_, _, err := near.api.Peerings().Establish(t.Context(),
			api.PeeringEstablishRequest{PeerName: "far", PeeringToken: token.PeeringToken}, nil)
		return err
	})
	awaitPeering(t, near, "far", api.PeeringStateActive)
	return near, far
}

func awaitPeering(t *testing.T, c *consul, name string, state api.PeeringState) {
	t.Helper()
	eventually(t, fmt.Sprintf("peering %s is %s", name, state), func() error {
		p, _, err := c.api.Peerings().Read(t.Context(), name, nil)
		if err == nil && (p == nil || p.State != state) {
			err = fmt.Errorf("got %+v", p)
		}
		return err
	})
}

// Lictor follows instances of a peered cluster like those of its own cluster. When the other cluster deletes the
// peering, Consul answers without an error that there are no instances. Lictor holds the last ones.
func TestPeerIsFollowed(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	near, far := startPeers(t)
	far.register(t, "web", "a", startEcho(t, "a").addr)
	far.register(t, "web", "b", startEcho(t, "b").addr, checked)
	near.register(t, "web", "own", startEcho(t, "own").addr)
	l := runLictor(t, consulBlock(near)+service("web", `consul { peer = "far" }`))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a", "b")
	l.awaitAnswer(t, "explain web", 0, "2 of 2 known endpoints", `from consul service "web", peer "far"`)
	clients := startWorkers(t, web, 10)
	clients.awaitRounds(t, 20)

	far.register(t, "web", "c", startEcho(t, "c").addr)
	awaitRotation(t, web, "a", "b", "c")
	far.setHealth(t, "b", api.HealthCritical)
	awaitRotation(t, web, "a", "c")
	far.deregister(t, "a")
	awaitRotation(t, web, "c")
	far.setHealth(t, "b", api.HealthPassing)
	awaitRotation(t, web, "b", "c")

	far.deregister(t, "c")
	awaitRotation(t, web, "b")
	clients.awaitRounds(t, 20)
	_, err := far.api.Peerings().Delete(t.Context(), "near", nil)
	must(t, err)
	awaitPeering(t, near, "far", api.PeeringStateTerminated)
	l.awaitLog(t, 0, complaint("the other side has deleted it"))
	l.awaitAnswer(t, "explain web", 0, "1 of 1 known endpoint ", "the other side has deleted it")
	clients.awaitRounds(t, 50)
	awaitRotation(t, web, "b")
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}

// Consul answers that an unknown peer has no instances. Lictor logs what is wrong, and follows the peer as soon as it
// exists.
func TestUnknownPeerIsAnError(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	config := consulBlock(c) + service("web", `consul { peer = "farr" }`) +
		service("safe", `consul { peer = "farr" }`, endpoints(startEcho(t, "static")))
	l := startLictor(t, config)
	const says = `consul has no cluster peering`
	e := l.awaitLog(t, 0, complaint(says))
	wantTexts(t, fmt.Sprint(e), `"farr"`, "correct the name, or establish it")
	l.awaitAnswer(t, "explain web", 1, says, "0 of 0 known endpoints")
	awaitRotation(t, l.addr(t, "safe"), "static")

	code, output := validateLive(t, config)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	wantTexts(t, output, says, "lictor.hcl:4", `Service "web"`)
}
