package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A crowd is an agent behind TLS that delays all queries until open is closed, and counts connections.
type crowd struct {
	held, conns atomic.Int64
	open        chan struct{}
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.held.Add(1)
	<-c.open
	w.Header().Set("X-Consul-Index", "7")
	_, _ = w.Write([]byte("[]"))
}

func (c *crowd) count(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		c.conns.Add(1)
	}
}

// Without the gate, 600 concurrent queries open nearly as many connections.
func TestManyQueriesAtOnceMakeFewConnections(t *testing.T) {
	c := &crowd{open: make(chan struct{})}
	server := httptest.NewUnstartedServer(c)
	server.EnableHTTP2 = true
	server.Config.ConnState = c.count
	server.StartTLS()
	defer server.Close()
	client, err := New(Options{Address: server.URL, TLS: TLSOptions{InsecureSkipVerify: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdle()
	const queries = 600
	var running sync.WaitGroup
	for range queries {
		running.Go(func() {
			a, err := client.Query(t.Context(), Request{Path: "/v1/health/service/web", Index: 5, Wait: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			a.Free()
		})
	}
	held := func() error {
		if n := c.held.Load(); n != queries {
			return fmt.Errorf("%d of %d queries are held", n, queries)
		}
		return nil
	}
	if err := testproc.Poll(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	// Go puts 100 queries on a connection until the agent has announced that it accepts 250. When all connections are
	// full, each query that may look for a connection opens one.
	if n, want := c.conns.Load(), int64(queries/100*gateWidth); n > want {
		t.Errorf("%d connections for %d queries, want at most %d", n, queries, want)
	}
	close(c.open)
	running.Wait()
	if n := len(client.at.Load().gate); n != 0 {
		t.Errorf("%d queries in the gate after all have ended", n)
	}
}

func TestGateIsLeftOnce(t *testing.T) {
	g := make(gate, 1)
	_, leave, err := g.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := g.enter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("entered a full gate: %v", err)
	}
	leave()
	if _, _, err := g.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave()
	if len(g) != 1 {
		t.Error("leaving twice has freed another query's place")
	}
}
