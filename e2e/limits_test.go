//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestMoreClientsThanDescriptorsDegradesAndRecovers(t *testing.T) {
	t.Parallel()
	const descriptors, clients = 2000, 5000
	needDescriptors(t, clients+descriptors+500)
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	l := startLictor(t, consulBlock(c)+service("web"),
		"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, descriptors), "sh")
	l.awaitReady(t)
	web := l.addr(t, "web")
	first := mustConnect(t, web)

	served := flood(t, web, clients)
	t.Logf("%d clients of %d served at once, with %d descriptors", len(served), clients, descriptors)
	if len(served) < 500 {
		t.Errorf("%d clients served, want at least 500", len(served))
	}
	must(t, first.echo("from before"))
	for _, s := range served[:min(100, len(served))] {
		must(t, s.echo("while there is no room"))
	}

	for _, s := range served {
		must(t, s.Close())
	}
	// Clients that gave up may still wait to be accepted, and fail.
	eventually(t, "back to normal", func() error {
		_, err := ask(t.Context(), web)
		return err
	})
	awaitRotation(t, web, "a", "b")
	// The kernel may still finish the handshake of a client that gave up, which then takes a turn.
	eventually(t, "equal shares", func() error { return counted(t, web, map[string]int{"a": 100, "b": 100}) })
	c.register(t, "web", "c", startEcho(t, "c").addr)
	awaitRotation(t, web, "a", "b", "c")
}

// needDescriptors skips the test if this process may not have n descriptors. The Go runtime has raised the soft limit
// to the hard one.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if uint64(limit.Cur) >= n {
		return
	}
	testproc.Cannot(t, fmt.Sprintf("there cannot be %d descriptors", n),
		fmt.Errorf("the limit is %d, see `ulimit -Hn`", limit.Cur))
}

// flood connects n clients at once, and returns those that were served within ten seconds. They stay connected.
func flood(t *testing.T, addr netip.AddrPort, n int) []*client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var (
		mu     sync.Mutex
		served []*client
		group  sync.WaitGroup
	)
	for range n {
		group.Go(func() {
			c, err := connect(ctx, addr)
			if err != nil {
				return // there was no descriptor for this client
			}
			mu.Lock()
			defer mu.Unlock()
			served = append(served, c)
		})
	}
	group.Wait()
	t.Cleanup(func() {
		for _, c := range served {
			_ = c.Close()
		}
	})
	return served
}

// One client has at most max_connections_per_client connections. Log, access log and status show why more are refused.
func TestOneClientHasSoManyConnections(t *testing.T) {
	t.Parallel()
	a := startEcho(t, "a")
	access := filepath.Join(t.TempDir(), "access.log")
	config := func(limit int) string {
		return fmt.Sprintf("access_log {\n  path = %q\n}\n", access) +
			service("web", endpoints(a), fmt.Sprint("max_connections_per_client = ", limit))
	}
	l := runLictor(t, config(2))
	web := l.addr(t, "web")
	one, two := mustConnect(t, web), mustConnect(t, web)
	refused := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := connect(ctx, web); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
	}
	refused()
	l.awaitAnswer(t, "status web", 0, "1 client: per_client 1")
	l.awaitLog(t, 0, func(e entry) bool {
		const why = "max_connections_per_client"
		return e.field("@message") == "client refused" && strings.Contains(e.field("error"), why)
	})
	eventually(t, "a line in the access log", func() error {
		text, err := os.ReadFile(access)
		if err == nil && !strings.Contains(string(text), `"by":"lictor","end":"per-client limit"`) {
			err = fmt.Errorf("got %q", text)
		}
		return err
	})

	l.mustReload(t, config(1))
	refused()
	must(t, one.echo("still there"))
	must(t, two.echo("still there"))
	l.mustReload(t, config(3))
	must(t, mustConnect(t, web).echo("the third"))
	refused()
}
