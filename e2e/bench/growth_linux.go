package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// growth writes tables of processor time and memory by number of services, endpoints and connections.
func (b *bench) growth(w io.Writer) error {
	describe(b).markdown(w)
	for _, table := range []struct {
		title string
		sizes []int
		plan  func(n int) (services, endpoints, connections int)
	}{
		{"services", []int{1, 10, 100, 1000}, func(n int) (int, int, int) { return n, backendCount, max(n, 32) }},
		{"endpoints of a service", []int{2, 10, 100, 1000}, func(n int) (int, int, int) { return 1, n, 32 }},
		{"connections", []int{10, 100, 1000, min(9000, mostPairs())},
			func(n int) (int, int, int) { return 1, backendCount, n }},
	} {
		fmt.Fprintf(w, "\n| %s | proxy | per request | per connection | resident | resident a pair |\n"+
			"|--:|---|--:|--:|--:|--:|\n", table.title)
		for _, n := range table.sizes {
			for _, t := range b.targets {
				if t.plain {
					continue
				}
				services, endpoints, connections := table.plan(n)
				g, err := b.grown(t, services, endpoints, connections)
				if err != nil {
					b.say("  %d %s on %s: %v", n, table.title, t.name, err)
					g = grownCost{math.NaN(), math.NaN(), math.NaN(), math.NaN()}
				}
				fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s |\n", n, t.name, duration(g.request),
					duration(g.connection), size(g.rss), size(g.pair))
			}
		}
	}
	return nil
}

var errNoTime = errors.New("no time is left (-time)")

// A grownCost is the cost at one size. Processor times are in microseconds, memory is in bytes.
type grownCost struct{ request, connection, rss, pair float64 }

// grown measures a new proxy process: requests on all connections in turn, spread over all services, and new
// connections to all services in turn. It returns medians of three.
func (b *bench) grown(t *target, services, endpoints, connections int) (grownCost, error) {
	if time.Since(b.began) > b.options.time {
		return grownCost{}, errNoTime
	}
	b.say("%s: %d services, %d endpoints each, %d connections", t.name, services, endpoints, connections)
	b.options.current = fmt.Sprintf("growth-%d-%d-%d", services, endpoints, connections)
	p, err := b.plan(endpoints, webs(services)...)
	if err != nil {
		return grownCost{}, err
	}
	p.Pairs = connections + 200
	i, err := b.launch(t, p)
	if err != nil {
		return grownCost{}, err
	}
	defer b.stop(i)
	// The first connections allocate memory that later ones share. Open some before the measurement.
	const window = 32
	warm, err := open(i.addrs(), window)
	if err != nil {
		return grownCost{}, err
	}
	defer closeAll(warm)
	before, err := usageOf(i.group())
	if err != nil {
		return grownCost{}, err
	}
	fds, err := open(i.addrs(), connections)
	if err != nil {
		return grownCost{}, err
	}
	defer closeAll(fds)
	after, err := usageOf(i.group())
	if err != nil {
		return grownCost{}, err
	}
	pair := float64(after.rss-before.rss) / float64(connections)
	if connections < 1000 {
		pair = math.NaN() // a single page would distort the figure
	}
	var request, connection, rss []float64
	for range 3 {
		s, err := b.traffic(i, max(b.scaled(20_000), 2*connections), 1, requestSlots(fds, window))
		if err != nil {
			return grownCost{}, err
		}
		request, rss = append(request, s[mCPU]), append(rss, s[mRSS])
		s, err = b.traffic(i, max(b.scaled(4_000), services), 1, exchangeSlots(i.addrs(), window, opEcho, messageSize))
		if err != nil {
			return grownCost{}, err
		}
		connection = append(connection, s[mCPU])
	}
	return grownCost{median(request), median(connection), median(rss), pair}, nil
}
