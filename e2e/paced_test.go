//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// paced is a load of so many requests a second. When a request is due does not depend on the answers: what a slow
// machine cannot serve in time is made up for later. So the rate is what was offered in any case, and stop checks it.
type paced struct {
	rate  int
	addrs []netip.AddrPort
	began time.Time
	taken atomic.Int64 // requests that have a client

	answered atomic.Int64
	errors   chan error
	over     chan struct{} // closed when nothing is due any more
	end      time.Time     // set before over is closed
	clients  sync.WaitGroup
}

const (
	// pacedClients is how many clients share the requests. Each keeps a connection.
	pacedClients = 32

	// pacedFresh is which of the requests come over a new connection: one in so many.
	pacedFresh = 10
)

// startPaced connects the clients, and offers so many requests a second to the addresses in turn.
func startPaced(t *testing.T, rate int, addrs ...netip.AddrPort) *paced {
	t.Helper()
	var kept []*client
	for n := range pacedClients {
		kept = append(kept, mustConnect(t, addrs[n%len(addrs)]))
	}
	p := &paced{rate: rate, addrs: addrs, began: time.Now(), errors: make(chan error, pacedClients),
		over: make(chan struct{})}
	for _, c := range kept {
		p.clients.Go(func() { p.work(c) })
	}
	t.Cleanup(func() { p.close(time.Now()) })
	return p
}

// due returns when request n is due.
func (p *paced) due(n int64) time.Time {
	return p.began.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
}

// work makes requests, each when it is due, until nothing is due any more.
func (p *paced) work(kept *client) {
	defer func() { _ = kept.Close() }()
	for {
		n := p.taken.Add(1) - 1
		due := p.due(n)
		select {
		case <-time.After(time.Until(due)):
		case <-p.over:
		}
		select {
		case <-p.over:
			if due.After(p.end) {
				return
			}
		default:
		}
		if err := p.request(n, kept); err != nil {
			p.errors <- fmt.Errorf("request %d: %w", n, err)
			return
		}
		p.answered.Add(1)
	}
}

func (p *paced) request(n int64, kept *client) error {
	if n%pacedFresh != 0 {
		return kept.echo("on a kept connection")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := connect(ctx, p.addrs[n/pacedFresh%int64(len(p.addrs))])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return c.echo("on a new connection")
}

// await waits until n more requests have been answered.
func (p *paced) await(t *testing.T, n int64) {
	t.Helper()
	want := p.answered.Load() + n
	eventually(t, fmt.Sprint(n, " requests are answered"), func() error {
		if len(p.errors) > 0 {
			t.Fatal(<-p.errors)
		}
		if got := p.answered.Load(); got < want {
			return fmt.Errorf("%d are left", want-got)
		}
		return nil
	})
}

// close waits for the requests that are due until end.
func (p *paced) close(end time.Time) {
	select {
	case <-p.over:
	default:
		p.end = end
		close(p.over)
	}
	p.clients.Wait()
}

// stop ends the load. Each request that was due must have been answered.
func (p *paced) stop(t *testing.T) {
	t.Helper()
	end := time.Now()
	late := p.answered.Load()
	p.close(end)
	if n := len(p.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-p.errors)
	}
	offered := int64(end.Sub(p.began).Seconds() * float64(p.rate))
	if got := p.answered.Load(); got < offered {
		t.Errorf("%d requests were answered, want %d: %d a second for %v", got, offered, p.rate, end.Sub(p.began))
	}
	t.Logf("%d requests, %d a second, %d of which came late", offered, p.rate, max(offered-late, 0))
}
