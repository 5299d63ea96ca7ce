package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// options are the command's flags.
type options struct {
	lictor   string
	changes  int
	services int
	big      int
	rate     int
	duration time.Duration
	idle     time.Duration
	fabio    string
	template string
	haproxy  string
}

func main() {
	var o options
	flag.StringVar(&o.lictor, "lictor", "bin/lictor", "the lictor to measure")
	flag.IntVar(&o.changes, "changes", 500, "changes to measure convergence with, a quarter of each kind; 0: leave "+
		"that out")
	flag.IntVar(&o.services, "services", 1000,
		"services, of 3 instances each, to measure time, memory and idle processor time with; 0: leave that out")
	flag.IntVar(&o.big, "big", 10000, "the same once more with so many; 0: leave that out")
	flag.IntVar(&o.rate, "rate", 100, "changes a second over the services; 0: leave that out")
	flag.DurationVar(&o.duration, "for", time.Minute, "how long to make them")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long to measure processor time while nothing changes")
	flag.StringVar(&o.fabio, "fabio", "", "a fabio to measure beside lictor: convergence only")
	flag.StringVar(&o.template, "consul-template", "",
		"a consul-template to measure beside lictor, with HAProxy: convergence only")
	flag.StringVar(&o.haproxy, "haproxy", "haproxy", "the HAProxy for that")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "benchdiscovery:", err)
		os.Exit(1)
	}
}

// run measures, part by part, and prints each figure as soon as it is known.
func run(ctx context.Context, o options) error {
	fmt.Println("| what | figure |\n|---|---|")
	parts := []struct {
		on bool
		do func(context.Context, options) error
	}{
		{o.changes > 0, converge},
		{o.services > 0, func(ctx context.Context, o options) error { return many(ctx, o, o.services, o.rate > 0) }},
		{o.big > 0, func(ctx context.Context, o options) error { return many(ctx, o, o.big, false) }},
	}
	for _, part := range parts {
		if !part.on {
			continue
		}
		if err := part.do(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// row prints one figure as a row of a table.
func row(what, figure string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(figure, args...))
}
