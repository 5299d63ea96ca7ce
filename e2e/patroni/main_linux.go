package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are the command's flags.
type options struct {
	lictor  string
	recipe  string
	haproxy string
	runs    int
	writers int
	only    string
	limit   time.Duration
	logs    string

	sessions bool
}

func main() {
	var o options
	flag.StringVar(&o.lictor, "lictor", "bin/lictor", "the lictor to measure")
	flag.StringVar(&o.recipe, "recipe", "examples/patroni.hcl", "its configuration, with the ports 5432 and 8008")
	flag.StringVar(&o.haproxy, "haproxy", "/usr/sbin/haproxy", "the HAProxy to measure")
	flag.IntVar(&o.runs, "runs", 5, "how often to go through each scenario")
	flag.IntVar(&o.writers, "writers", 4, "writers through each proxy")
	flag.StringVar(&o.only, "only", "", "the scenarios to go through, a regular expression; empty: all")
	flag.DurationVar(&o.limit, "limit", 35*time.Minute, "give up after that")
	flag.StringVar(&o.logs, "logs", "", "an existing folder for the logs of all programs; empty: they are not kept")
	flag.BoolVar(&o.sessions, "sessions", false,
		"do not measure outages but what else sessions need: cancel requests, COPY, LISTEN, PgBouncer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "patroni:", err)
		os.Exit(1)
	}
}

// run runs the scenarios, round by round, and prints the table.
func run(ctx context.Context, o options) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	s, err := setUp(ctx, o)
	if err != nil {
		return err
	}
	defer s.tearDown()
	if o.sessions {
		return runSessions(ctx, s)
	}
	var measured results
	defer func() { measured.print(os.Stdout) }() // print the results so far, even after an error
	for round := range o.runs {
		for _, scenario := range scenarios {
			if !only.MatchString(scenario.name) {
				continue
			}
			result, err := s.measure(ctx, scenario)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", scenario.name, round+1, err)
			}
			measured.add(scenario.name, result)
		}
	}
	return nil
}
