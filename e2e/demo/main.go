// Command demo shows Lictor at work. It starts a Consul agent, lictor, and instances of two services, each as a
// process. Then it makes requests, kills an instance and starts the instance again.
//
// All programs listen on 127.0.0.1 only and end with the demo. Run it with `make demo`. With ONCE=1 the demo ends
// after the tour, and succeeds only if it has seen everything that it shows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) == 5 && os.Args[1] == "instance" {
		fail(serve(os.Args[2], os.Args[3], os.Args[4]))
		return
	}
	lictor := flag.String("lictor", "bin/lictor", "the lictor to show")
	once := flag.Bool("once", false, "end after the tour")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	fail(run(ctx, *lictor, *once))
}

func run(ctx context.Context, lictor string, once bool) error {
	s, err := newStage(lictor)
	if err != nil {
		return err
	}
	defer s.close()
	err = s.tour(ctx)
	if ctx.Err() != nil {
		say("\nStopped.")
		return nil
	}
	if err != nil {
		return errors.Join(err, s.logs())
	}
	if once {
		say("\nDone: everything worked as shown.")
		return nil
	}
	s.invite()
	select {
	case <-ctx.Done():
		say("\nStopped all programs.")
		return nil
	case <-s.consul.Done():
		return errors.Join(errors.New("consul has ended"), s.logs())
	case <-s.lictor.Done():
		return errors.Join(errors.New("lictor has ended"), s.logs())
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
