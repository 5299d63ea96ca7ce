//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// held starts Lictor, and makes one connection through it.
func held(t *testing.T, grace string) (*lictor, *client) {
	t.Helper()
	config := fmt.Sprintf("shutdown_grace = %q\n", grace) +
		service("web", "static {", fmt.Sprintf("endpoints = [%q]", startEcho(t, "a").addr), "}")
	l := runLictor(t, config)
	return l, mustConnect(t, l.addr(t, "web"))
}

// awaitRefusal waits until connections to addr are refused.
func awaitRefusal(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	eventually(t, "new connections are refused", func() error {
		_, err := ask(t.Context(), addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		return fmt.Errorf("not refused: %v", err)
	})
}

// wantCut waits until the connection has ended.
func (c *client) wantCut(t *testing.T) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := c.reader.ReadByte()
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection in flight: %v, want it cut", err)
	}
}

func TestSignalLetsConnectionsFinish(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			l, conn := held(t, "10m")
			must(t, l.Signal(sig))
			awaitRefusal(t, l.addr(t, "web"))
			for i := range 10 {
				must(t, conn.echo(fmt.Sprint("still in flight ", i)))
			}
			must(t, conn.CloseWrite())
			if rest, err := io.ReadAll(conn.reader); len(rest) > 0 || err != nil {
				t.Errorf("the end of the connection: %q, %v, want EOF", rest, err)
			}
			l.exits(t, 0)
		})
	}
}

func TestGraceEndsWithACut(t *testing.T) {
	t.Parallel()
	l, conn := held(t, "300ms")
	l.terminate(t)
	conn.wantCut(t)
	l.exits(t, 0)
}

func TestSecondSignalCutsAtOnce(t *testing.T) {
	t.Parallel()
	l, conn := held(t, "10m")
	l.terminate(t)
	awaitRefusal(t, l.addr(t, "web"))
	must(t, conn.echo("still in flight"))
	l.terminate(t)
	conn.wantCut(t)
	l.exits(t, 0)
}

func TestSignalWithNothingInFlightEndsAtOnce(t *testing.T) {
	t.Parallel()
	l, conn := held(t, "10m")
	must(t, conn.Close())
	l.terminate(t)
	l.exits(t, 0)
}

func TestSignalWhileConsulIsAwayEndsAtOnce(t *testing.T) {
	t.Parallel()
	nobody := deadAddr(t)
	l := startLictor(t, fmt.Sprintf("consul { address = %q }\n", nobody)+service("web"))
	l.awaitLog(t, 0, complaint("consul"))
	l.terminate(t)
	l.exits(t, 0)
}

func TestHangupDoesNotEndIt(t *testing.T) {
	t.Parallel()
	l, conn := held(t, "10m")
	for range 3 {
		must(t, l.Signal(syscall.SIGHUP))
		must(t, conn.echo("still there?"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := ask(ctx, l.addr(t, "web")); err != nil {
		t.Error(err)
	}
	if !l.Running() {
		t.Error("it has ended")
	}
}

func TestListenerAddressCanBeTakenAgainAtOnce(t *testing.T) {
	t.Parallel()
	l, conn := held(t, "10m")
	web := l.addr(t, "web")
	must(t, conn.Close())
	l.terminate(t)
	l.exits(t, 0)
	next, err := net.Listen("tcp", web.String())
	must(t, err)
	must(t, next.Close())
}
