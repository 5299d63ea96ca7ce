//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// underLoad starts Lictor with config and clients of its service web, and calls fault. It fails the test if a client
// has noticed anything.
func underLoad(t *testing.T, config string, fault func(l *lictor, clients *workers)) {
	t.Helper()
	l := runLictor(t, config)
	clients := startWorkers(t, l.addr(t, "web"), 20)
	clients.awaitRounds(t, 20)
	fault(l, clients)
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}

func (c *consul) registerEchos(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
}

// A restored snapshot sets Consul's index back. A query that waits with the old index hears of no change.
func TestSnapshotRestoredUnderLoad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.registerEchos(t, "a", "b")
	reader, _, err := c.api.Snapshot().Save(nil)
	must(t, err)
	snapshot, err := io.ReadAll(reader)
	must(t, err)
	must(t, reader.Close())
	for i := range 50 {
		_, err := c.api.KV().Put(&api.KVPair{Key: "x", Value: fmt.Append(nil, i)}, nil)
		must(t, err)
	}
	c.registerEchos(t, "c")
	underLoad(t, consulBlock(c)+service("web"), func(l *lictor, clients *workers) {
		must(t, c.api.Snapshot().Restore(nil, bytes.NewReader(snapshot)))
		clients.awaitRounds(t, 20)
		c.registerEchos(t, "d")
		within(t, 2*patience, "the new instance is in", func() error {
			name, err := ask(t.Context(), l.addr(t, "web"))
			if err == nil && name != "d" {
				err = fmt.Errorf("%s answers", name)
			}
			return err
		})
	})
}

func TestAgentStoppedUnderLoad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until the agent is known to hang")
	}
	c := startConsul(t, testconsul.Options{})
	c.registerEchos(t, "a", "b", "c")
	underLoad(t, consulBlock(c)+service("web"), func(l *lictor, clients *workers) {
		c.pause(t)
		l.awaitLog(t, 0, complaint("consul"))
		clients.awaitRounds(t, 50)
		c.resume(t)
		l.awaitLog(t, 0, func(e entry) bool { return e.field("@message") == "consul answers again" })
	})
}

func TestTokenDeletedAndRestoredUnderLoad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.registerEchos(t, "a", "b", "c")
	token := c.newToken(t)
	file := tokenFile(t, token.SecretID)
	underLoad(t, fmt.Sprintf("consul {\n  address = %q\n  token_file = %q\n}\n", c.HTTP, file)+service("web"),
		func(l *lictor, clients *workers) {
			_, err := c.api.ACL().TokenDelete(token.AccessorID, nil)
			must(t, err)
			l.awaitLog(t, 0, complaint("denies access"))
			clients.awaitRounds(t, 50)
			writeToken(t, file, c.newToken(t).SecretID)
			l.awaitLog(t, 0, func(e entry) bool {
				return strings.Contains(e.field("@message"), "permits access again")
			})
			c.registerEchos(t, "d")
			awaitRotation(t, l.addr(t, "web"), "a", "b", "c", "d")
		})
}

// Thirty services are followed although the agent allows five connections.
func TestFewConnectionsAllowedUnderLoad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{HCL: "limits { http_max_conns_per_client = 5 }\n"})
	c.registerEchos(t, "a", "b", "c")
	config := consulBlock(c) + service("web")
	for i := range 30 {
		config += service(fmt.Sprint("s", i), fmt.Sprintf("consul { filter = \"Service.ID != none%d\" }", i))
	}
	underLoad(t, config, func(l *lictor, clients *workers) {
		said := l.awaitLog(t, 0, complaint("take turns"))
		if !strings.Contains(said.field("to_change_that"), "http_max_conns_per_client") {
			t.Errorf("it does not say what to change: %v", said)
		}
		four := startEcho(t, "d")
		eventually(t, "one of the five connections for the test", func() error {
			return c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", ID: "d",
				Address: "127.0.0.1", Port: int(four.addr.Port())})
		})
		awaitRotation(t, l.addr(t, "web"), "a", "b", "c", "d")
	})
}

// The agent of an instance is killed, and the instance lives. When Consul has noticed, the instance gets no more
// clients. No client notices.
func TestAgentOfAnInstanceKilledUnderLoad(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until Consul takes a node for failed")
	}
	c := startConsul(t, testconsul.Options{})
	c.registerEchos(t, "a", "b")
	other := startConsul(t, testconsul.Options{Client: true, Join: c.LAN, Node: "other"})
	other.register(t, "web", "far", startEcho(t, "far").addr)
	eventually(t, "the servers know the instance", func() error {
		entries, _, err := c.api.Health().Service("web", "", true, nil)
		if err == nil && len(entries) != 3 {
			err = fmt.Errorf("%d instances", len(entries))
		}
		return err
	})
	underLoad(t, consulBlock(c)+service("web"), func(l *lictor, clients *workers) {
		other.Kill()
		within(t, 2*time.Minute, "the node is taken for failed", func() error {
			checks, _, err := c.api.Health().Node("other", nil)
			if err == nil && checks.AggregatedStatus() != api.HealthCritical {
				err = fmt.Errorf("the node is %s", checks.AggregatedStatus())
			}
			return err
		})
		awaitRotation(t, l.addr(t, "web"), "a", "b")
	})
}
