package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// options are the command's flags, and the state of the run.
type options struct {
	lictor        string
	peers         list
	only, targets *regexp.Regexp
	rounds        int
	time          time.Duration
	quick, growth bool
	soak          time.Duration
	pin           bool
	json, svg     string
	perf          string

	groups  *groups  // nil: no target has a kernel path
	missing []string // targets that are not available, with the reasons
	current string   // name of the load that is being measured
}

// A list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ", ") }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func main() {
	// This program also starts itself as a backend, as a flood and as a guard.
	switch {
	case len(os.Args) >= 3 && os.Args[1] == "backend":
		fail(serveBackend(os.Args[2], os.Args[3:]))
		return
	case len(os.Args) == 6 && os.Args[1] == "flood":
		fail(serveFlood(os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
		return
	case len(os.Args) == 3 && os.Args[1] == "guard":
		fail(serveGuard(os.Stdin, os.Args[2]))
		return
	}
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	fail(run(o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.lictor, "lictor", "bin/lictor", "the lictor to measure")
	f.Var(&o.peers, "peer", "another proxy, as name=command; name+udp=command for one with UDP (see the README). "+
		"May be repeated")
	only := f.String("only", "", "loads whose names match this `regexp` only")
	which := f.String("targets", "", "targets whose names match this `regexp` only")
	f.IntVar(&o.rounds, "rounds", 0, "how often everything is measured (7, quick: 3)")
	f.DurationVar(&o.time, "time", 0, "begin no round that would end after so long (9m, quick: 50s)")
	f.BoolVar(&o.quick, "quick", false, "a quarter of the work, less than a minute")
	f.BoolVar(&o.growth, "growth", false, "show how cost grows with services, endpoints and connections, instead")
	f.DurationVar(&o.soak, "soak", 0, "churn connections, endpoints and sessions for so long, and compare the end "+
		"with the beginning, instead")
	f.BoolVar(&o.pin, "pin", false, "give proxies the first half of the processors, and all else the other")
	f.StringVar(&o.json, "json", "", "write everything that was measured to this `file`")
	f.StringVar(&o.svg, "svg", "", "write a plot to this `file`")
	f.StringVar(&o.perf, "perf", "", "record a profile of each measurement with perf, into this `folder`")
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("%q is one argument too many", f.Arg(0))
		fmt.Fprintln(out, err)
	}
	for _, re := range []struct {
		text string
		to   **regexp.Regexp
	}{{*only, &o.only}, {*which, &o.targets}} {
		var reErr error
		if *re.to, reErr = regexp.Compile(re.text); reErr != nil && err == nil {
			err = reErr
			fmt.Fprintln(out, err)
		}
	}
	if o.rounds == 0 {
		o.rounds = 7
		if o.quick {
			o.rounds = 3
		}
	}
	if o.time == 0 {
		o.time = 9 * time.Minute
		if o.quick {
			o.time = 50 * time.Second
		}
	}
	return o, err
}

func run(o *options) error {
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	// A signal ends this program and all processes that it has started.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go endOn(signals)
	switch {
	case o.soak > 0:
		return b.soak()
	case o.growth:
		return b.growth(os.Stdout)
	}
	rs, err := b.compare()
	if err != nil {
		return err
	}
	m := describe(b)
	if err := rs.markdown(os.Stdout, m); err != nil {
		return err
	}
	if o.json != "" {
		if err := writeFile(o.json, func(w io.Writer) error { return rs.json(w, m) }); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return writeFile(o.svg, func(w io.Writer) error { return rs.svg(w, m) })
	}
	return nil
}

// endOn ends this process at a signal. The kernel and the guard end its children.
func endOn(signals <-chan os.Signal) {
	s := <-signals
	fmt.Fprintln(os.Stderr, "bench: stopped by", s)
	os.Exit(1)
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
