package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A soak is a run of one Lictor under changing load. Afterwards Lictor must hold no more memory, descriptors and
// goroutines than before.
type soak struct {
	*bench
	catalog   *catalog
	plan      plan
	endpoints []netip.AddrPort
	counts    map[string]int
	failures  int // failed TCP units; must stay zero
	lost      int // lost UDP datagrams; may be above zero
}

// Growth that a soak tolerates, because the figures of an idle Go program vary by as much.
const (
	soakFDs        = 2
	soakThreads    = 4
	soakGoroutines = 1
	soakMemory     = 8 << 20
)

// soak runs the load for as long as the options say. It fails if anything stays behind.
func (b *bench) soak() error {
	var t *target
	for _, one := range b.targets {
		if strings.HasPrefix(one.name, lictorTarget) {
			t = one
			break
		}
	}
	if t == nil {
		return errors.New("no lictor to soak")
	}
	s := &soak{bench: b, counts: map[string]int{}}
	stop, err := s.prepare()
	if err != nil {
		return err
	}
	defer stop()
	if t.kernel {
		s.plan.KernelPath = "auto" // the UDP service has limits
	}
	fresh, err := s.freshGoroutines(t)
	if err != nil {
		return err
	}
	i, err := b.launch(t, s.plan)
	if err != nil {
		return err
	}
	defer b.stop(i)

	b.say("%s: warming up", t.name)
	if err := s.churnAs(t, i, min(max(b.options.soak/10, 5*time.Second), 30*time.Second)); err != nil {
		return err
	}
	before, err := s.quiet(i, 0)
	if err != nil {
		return err
	}
	s.counts, s.failures, s.lost = map[string]int{}, 0, 0
	b.say("%s: churning for %v", t.name, b.options.soak)
	if err := s.churnAs(t, i, b.options.soak); err != nil {
		return err
	}
	after, err := s.quiet(i, before.fds+soakFDs)
	if err != nil {
		return err
	}
	goroutines, err := s.goroutines(i)
	if err != nil {
		return err
	}
	return s.judge(t, before, after, fresh, goroutines)
}

// prepare starts the catalog and makes the plan.
func (s *soak) prepare() (stop func(), err error) {
	for _, e := range s.backends.endpoints(2 * backendCount)[:backendCount] {
		s.endpoints = append(s.endpoints, netip.MustParseAddrPort(e))
	}
	s.catalog = newCatalog(s.endpoints)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: s.catalog, ReadHeaderTimeout: 10 * time.Second}
	go serveCatalog(server, l)
	s.plan = plan{Workers: s.pins.workers(), Consul: l.Addr().String(), Pairs: 2000, Descriptors: descriptorLimit(),
		Services: []service{
			{Name: webService, Protocol: "tcp"},
			{Name: udpService, Protocol: "udp", MaxSessions: 512, IdleTimeout: "1s"},
		}}
	for i := range s.plan.Services {
		if s.plan.Services[i].Listen, err = s.ports.next(); err != nil {
			return nil, errors.Join(err, server.Close())
		}
	}
	return func() { _ = server.Close() }, nil
}

func serveCatalog(server *http.Server, l net.Listener) {
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "bench: the catalog:", err)
	}
}

// churnAs is churn with clients of the target.
func (s *soak) churnAs(t *target, i *instance, d time.Duration) error {
	_, err := s.as(t, func() (sample, error) { return nil, s.churn(i, d) })
	return err
}

// churn changes the endpoints while clients run all kinds of load, for the duration d.
func (s *soak) churn(i *instance, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	gone := make(chan struct{})
	go s.shuffle(ctx, gone)
	defer func() { <-gone }()
	defer cancel()
	for ctx.Err() == nil {
		for _, one := range churns {
			if !i.process.Running() {
				return fmt.Errorf("lictor has ended: %s", i.log.Tail(10))
			}
			if err := one.do(s, i); err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	return nil
}

// shuffle changes the endpoints ten times a second until ctx ends. Then it restores all endpoints.
func (s *soak) shuffle(ctx context.Context, gone chan<- struct{}) {
	defer close(gone)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			order := rand.Perm(len(s.endpoints))
			var some []netip.AddrPort
			for _, n := range order[:1+rand.IntN(len(order))] {
				some = append(some, s.endpoints[n])
			}
			s.catalog.set(some)
		case <-ctx.Done():
			s.catalog.set(s.endpoints)
			return
		}
	}
}

// quiet waits until Lictor has at most fds descriptors, and measures it. If fds is zero, quiet waits as long as idle
// sessions live.
func (s *soak) quiet(i *instance, fds int) (usage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	time.Sleep(3 * time.Second) // sessions end after a second without traffic
	err := testproc.Poll(ctx, func() error {
		u, err := usageOf(i.group())
		if err == nil && fds > 0 && u.fds > fds {
			err = fmt.Errorf("%d descriptors, not %d", u.fds, fds)
		}
		return err
	})
	if err != nil {
		s.say("not quiet: %v", err) // the figures will show it
	}
	return usageOf(i.group())
}

// freshGoroutines returns the number of goroutines of a Lictor that has just started.
func (s *soak) freshGoroutines(t *target) (int, error) {
	i, err := s.launch(t, s.plan)
	if err != nil {
		return 0, err
	}
	defer s.stop(i)
	if _, err := s.quiet(i, 0); err != nil {
		return 0, err
	}
	return s.goroutines(i)
}

var goroutineLine = regexp.MustCompile(`(?m)^goroutine \d+ .*\[.*$`)

// countGoroutines counts the goroutines in a dump, except the garbage collector's workers. Go starts these at the first
// collection, one per processor.
func countGoroutines(dump string) int {
	n := 0
	for _, line := range goroutineLine.FindAllString(dump, -1) {
		if !strings.Contains(line, "[GC worker") {
			n++
		}
	}
	return n
}

// goroutines counts the goroutines of a Lictor and ends the process: on SIGQUIT a Go program lists its goroutines and
// exits.
func (s *soak) goroutines(i *instance) (int, error) {
	if err := i.process.Signal(syscall.SIGQUIT); err != nil {
		return 0, err
	}
	<-i.process.Done()
	n := countGoroutines(i.log.String())
	if n == 0 {
		return 0, fmt.Errorf("no list of goroutines: %s", i.log.Tail(10))
	}
	return n, nil
}

// judge prints the figures and returns an error for those that have grown.
func (s *soak) judge(t *target, before, after usage, fresh, goroutines int) error {
	fmt.Printf("%s, %v of churn, endpoints changed ten times a second:", t.name, s.options.soak)
	for _, one := range churns {
		fmt.Printf(" %d %s;", s.counts[one.name], one.name)
	}
	fmt.Printf(" %d TCP failures, %d UDP answers missing\n\n", s.failures, s.lost)
	fmt.Println("| | began | ended | allowed |\n|---|--:|--:|--:|")
	var wrong []string
	row := func(what string, began, ended, allowed float64, print func(float64) string) {
		fmt.Printf("| %s | %s | %s | %s |\n", what, print(began), print(ended), print(allowed))
		if ended > allowed {
			wrong = append(wrong, what)
		}
	}
	row("descriptors", float64(before.fds), float64(after.fds), float64(before.fds+soakFDs), amount)
	row("threads", float64(before.threads), float64(after.threads), float64(before.threads+soakThreads), amount)
	row("goroutines (began: of a fresh lictor)",
		float64(fresh), float64(goroutines), float64(fresh+soakGoroutines), amount)
	row("resident memory", float64(before.rss), float64(after.rss), float64(before.rss)*1.25+soakMemory, size)
	row("TCP failures", 0, float64(s.failures), 0, amount)
	if len(wrong) > 0 {
		return fmt.Errorf("not where it began: %s", strings.Join(wrong, ", "))
	}
	return nil
}
