package e2e

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The recipe of docs/migrating.md and examples/ works with a real Patroni. In a switchover under writers, no write
// reaches a replica, no write is lost, and the new primary gets all writes in the end.
func TestPatroniSwitchoverUnderWriters(t *testing.T) {
	anyEngine(t)
	if err := testpatroni.Find(); err != nil {
		testproc.Cannot(t, "there is no Patroni", err)
	}
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cluster, err := testpatroni.Start(ctx, testpatroni.Options{Dir: t.TempDir(), Consul: c.HTTP})
	must(t, err)
	t.Cleanup(cluster.Kill)
	must(t, cluster.Prepare(ctx))
	before := cluster.Leader(ctx)
	recipe, err := os.ReadFile("../examples/patroni.hcl")
	must(t, err)
	l := runLictor(t, consulBlock(c)+cluster.Recipe(string(recipe), "0"))
	writers := testpatroni.StartWriters("lictor", l.addr(t, "postgres").String(), 4)
	defer writers.Stop()
	awaitWriters(ctx, t, writers)

	must(t, cluster.Switchover(ctx))
	awaitWriters(ctx, t, writers)
	must(t, cluster.AwaitHealthy(ctx)) // the old primary is a replica now, and would answer
	awaitWriters(ctx, t, writers)
	after := cluster.Leader(ctx)
	if after == nil || after == before {
		t.Error("the primary did not move")
	}
	// An old primary keeps its tag in Consul for a while. Here a replica has the tag for long.
	must(t, c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: testpatroni.Scope + "/" + before.Name,
		Name: testpatroni.Scope, Tags: []string{"primary"}, Address: before.Host, Port: int(before.Port())}))
	l.awaitAnswer(t, "explain postgres", 0, before.Name, "/primary: status 503")
	awaitWriters(ctx, t, writers)
	must(t, cluster.Lost(ctx, writers))
	if tally := writers.Tally(); tally.ReadOnly > 0 || tally.Lost > 0 || tally.Writes == 0 {
		t.Errorf("%d writes, of which %d reached a replica, and %d are lost", tally.Writes, tally.ReadOnly, tally.Lost)
	}
	for _, m := range cluster.Members {
		if m != after && m.Writers(ctx) != 0 {
			t.Errorf("%s is no primary, and has writers", m.Name)
		}
	}
}

// awaitWriters waits until each writer has written again.
func awaitWriters(ctx context.Context, t testing.TB, w *testpatroni.Writers) {
	t.Helper()
	since := time.Now()
	must(t, testproc.Poll(ctx, func() error {
		if !w.Working(since) {
			return errors.New("not all writers write")
		}
		return nil
	}))
}
