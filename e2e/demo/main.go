// Command demo shows what Lictor does, on real things: it starts a consul agent, instances of two services as
// processes of their own, and lictor; makes requests; kills an instance and starts it again.
//
// All of it listens on 127.0.0.1 only and is gone when the demo ends. Run it with `make demo`; with ONCE=1 it ends
// by itself, and succeeds only if everything that it is meant to show was really seen.
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
		say("\nAll of this was seen. Done.")
		return nil
	}
	s.invite()
	select {
	case <-ctx.Done():
		say("\nStopped; everything is gone.")
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
