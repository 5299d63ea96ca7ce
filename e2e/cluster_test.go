//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A cluster is three Consul servers, and an agent as it runs on each host.
type cluster struct {
	servers []*testconsul.Agent
	agent   *consul
}

// keepsServers makes the servers vote again as soon as they return. Otherwise the leader removes a server that is gone
// for some seconds, and it must be back for 10 s before its vote counts.
const keepsServers = "autopilot { cleanup_dead_servers = false }\n"

func startCluster(t *testing.T) *cluster {
	t.Helper()
	findConsul(t)
	c := &cluster{}
	for i := range 3 {
		o := testconsul.Options{Binary: consulBinary, Dir: shortTempDir(t), Node: fmt.Sprint("server", i), Servers: 3,
			NoWait: true, HCL: keepsServers}
		if i > 0 {
			o.Join = c.servers[0].LAN
		}
		server, err := testconsul.Start(t.Context(), o)
		must(t, err)
		t.Cleanup(server.Kill)
		c.servers = append(c.servers, server)
	}
	must(t, c.servers[0].Ready(t.Context()))
	c.agent = startConsul(t, testconsul.Options{Client: true, Join: c.servers[0].LAN})
	return c
}

// leader returns the index of the server that leads.
func (c *cluster) leader(t *testing.T) (leader int) {
	t.Helper()
	eventually(t, "a leader", func() error { // on a busy machine there may be none for a moment
		for i, s := range c.servers {
			client, err := s.Client()
			must(t, err)
			self, err := client.Agent().Self()
			if err != nil {
				continue
			}
			if stats, ok := self["Stats"]["raft"].(map[string]any); ok && stats["state"] == "Leader" {
				leader = i
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}

// register registers an instance at the agent, and waits until the servers know it.
func (c *cluster) register(t *testing.T, id string, addr netip.AddrPort) {
	t.Helper()
	eventually(t, "registration of "+id, func() error {
		err := c.agent.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "web",
			Address: addr.Addr().String(), Port: int(addr.Port())})
		if err != nil {
			return err
		}
		entries, _, err := c.agent.api.Health().Service("web", "", true, nil)
		for _, e := range entries {
			if e.Service.ID == id {
				return nil
			}
		}
		return fmt.Errorf("not in the catalog: %v", err)
	})
}

// All three servers are lost at once. The agent asks the first server that returns, which cannot answer without a
// quorum, so the last good set stays in use. With the second server there is a leader, and Lictor follows again.
func TestAllServersLostAndOneBackIsNoQuorum(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections")
	}
	c := startCluster(t)
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, name, startEcho(t, name).addr)
	}
	l := runLictor(t, consulBlock(c.agent)+service("web"))
	web := l.addr(t, "web")
	clients := startWorkers(t, web, 10)
	clients.awaitRounds(t, 20)
	leader := c.leader(t)
	for _, s := range c.servers {
		s.Kill()
	}
	l.awaitLog(t, 0, complaint("consul is lost"))
	clients.awaitRounds(t, 50)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, c.servers[(leader+1)%3].Restart(ctx)) // Options.NoWait: it only has to run
	within(t, 3*patience, "lictor hears from that server, by way of the agent, that there is no leader", func() error {
		if _, out := l.ask(t, "explain", "web"); !strings.Contains(out, "No cluster leader") {
			return errors.New(out)
		}
		return nil
	})
	clients.awaitRounds(t, 100)
	_, out := l.ask(t, "explain", "web")
	for _, text := range []string{"3 of 3 known endpoints get clients", "the source fails"} {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in:\n%s", text, out)
		}
	}

	must(t, c.servers[(leader+2)%3].Restart(ctx))
	l.awaitLog(t, 0, func(e entry) bool { return e.field("@message") == "consul answers again" })
	c.register(t, "d", startEcho(t, "d").addr)
	awaitRotation(t, web, "a", "b", "c", "d")
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}

// The leader is killed, then a second server, then the last one and the agent. Later all return. No client notices,
// because the instances live. This is one test, because a cluster takes long to start.
func TestServersLostOneAfterTheOther(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections")
	}
	c := startCluster(t)
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, name, startEcho(t, name).addr)
	}
	config := consulBlock(c.agent) + service("web")
	l := runLictor(t, config)
	web := l.addr(t, "web")
	clients := startWorkers(t, web, 10)
	clients.awaitRounds(t, 20)

	leader := c.leader(t)
	c.servers[leader].Kill()
	clients.awaitRounds(t, 50)
	c.register(t, "d", startEcho(t, "d").addr) // the other two servers elect a leader
	awaitRotation(t, web, "a", "b", "c", "d")

	// Now there is no quorum. A Lictor that starts now has no endpoints, and must not be ready.
	second := (leader + 1) % 3
	c.servers[second].Kill()
	clients.awaitRounds(t, 50)
	// A leader continues to answer until its lease is over. The agent's queries fail for other reasons until it has
	// found another server.
	eventually(t, "loss of the quorum", func() error {
		if _, _, err := c.agent.api.Health().Service("web", "", true, nil); err == nil ||
			!strings.Contains(err.Error(), "No cluster leader") {
			return fmt.Errorf("there is a leader yet: %v", err)
		}
		return nil
	})
	stranger := startLictor(t, config)
	stranger.awaitLog(t, 0, complaint("consul"))
	clients.awaitRounds(t, 50)

	c.servers[3-leader-second].Kill()
	clients.awaitRounds(t, 50)
	c.agent.Kill() // the agent restarts without servers, and knows no services
	restarted := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		restarted <- c.agent.Restart(ctx)
	}()
	clients.awaitRounds(t, 100)
	if strings.Contains(stranger.stderr.String(), `"ready"`) {
		t.Error("a lictor that started without a quorum is ready")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, s := range c.servers {
		_ = s.Restart(ctx) // Options.NoWait: it only has to run
	}
	must(t, <-restarted)
	clients.awaitRounds(t, 50)
	c.register(t, "e", startEcho(t, "e").addr)
	awaitRotation(t, web, "a", "b", "c", "d", "e")
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
	stranger.awaitReady(t)
	awaitRotation(t, stranger.addr(t, "web"), "a", "b", "c", "d", "e")
}
