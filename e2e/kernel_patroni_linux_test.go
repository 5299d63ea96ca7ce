package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testpatroni"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Clients of PostgreSQL on the kernel path follow the primary of a real Patroni, with the recipe of examples/. pgbench
// has no Lictor between it and the primary. It loses its connections in a switchover, and then works with the next
// primary. Writers that connect again lose no write, and none reaches a replica.
func TestKernelPathFollowsThePrimary(t *testing.T) {
	t.Parallel()
	findConsul(t)
	if err := testpatroni.Find(); err != nil {
		testproc.Cannot(t, "there is no Patroni", err)
	}
	if _, err := exec.LookPath("pgbench"); err != nil {
		testproc.Cannot(t, "there is no pgbench", err)
	}
	group, ok := kernelPath(t)
	if !ok {
		return
	}
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
	l := runLictor(t, onPath(group, consulBlock(c), cluster.Recipe(string(recipe), "0")))
	at := l.addr(t, "postgres")
	must(t, group.Enter())
	bench := func(args ...string) *exec.Cmd {
		to := []string{"-h", at.Addr().String(), "-p", fmt.Sprint(at.Port()), "-U", "postgres", "postgres"}
		return exec.CommandContext(ctx, "pgbench", append(args, to...)...)
	}
	works := func(args ...string) {
		t.Helper()
		if out, err := bench(args...).CombinedOutput(); err != nil {
			t.Fatalf("pgbench %v: %v\n%s", args, err, out)
		}
	}
	works("-i", "-q")
	onThePath := func() {
		t.Helper()
		within(t, 3*patience, "PostgreSQL answers while Lictor is frozen", func() (err error) {
			frozen(t, l.Process, func() { err = connectsToPostgres(ctx, at.String()) })
			return err
		})
		frozen(t, l.Process, func() { works("-c", "4", "-t", "50") })
	}
	onThePath()

	writers := testpatroni.StartWriters("kernel", at.String(), 4)
	defer writers.Stop()
	awaitWriters(ctx, t, writers)
	long := bench("-c", "4", "-T", "300")
	must(t, long.Start())
	must(t, cluster.Switchover(ctx))
	if err := long.Wait(); err == nil {
		t.Error("pgbench has kept its connections to the former primary")
	}
	awaitWriters(ctx, t, writers)
	must(t, cluster.AwaitHealthy(ctx)) // the old primary is a replica now, and would answer
	awaitWriters(ctx, t, writers)
	if after := cluster.Leader(ctx); after == nil || after == before {
		t.Error("the primary did not move")
	}
	onThePath()
	must(t, cluster.Lost(ctx, writers))
	if tally := writers.Tally(); tally.ReadOnly > 0 || tally.Lost > 0 || tally.Writes == 0 {
		t.Errorf("%d writes, of which %d reached a replica, and %d are lost", tally.Writes, tally.ReadOnly, tally.Lost)
	}
}

// connectsToPostgres opens a session and closes it.
func connectsToPostgres(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := testpatroni.Connect(ctx, addr)
	if err == nil {
		s.Close()
	}
	return err
}
