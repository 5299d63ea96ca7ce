//go:build unix

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

func TestEchoOfManyBytesArrivesIntact(t *testing.T) {
	t.Parallel()
	size := int64(1 << 28) // thousands of times what all buffers hold
	if testing.Short() {
		size = 1 << 26
	}
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web"))
	conn := mustConnect(t, l.addr(t, "web"))
	must(t, conn.SetDeadline(time.Now().Add(5*time.Minute)))

	started := time.Now()
	sent := sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- send(conn.TCPConn, size, sent) }()
	got := sha256.New()
	n, err := io.Copy(got, conn.reader)
	must(t, err)
	must(t, <-sending)
	if n != size || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
		t.Errorf("got %d bytes with sum %x, want %d with %x", n, got.Sum(nil), size, sent.Sum(nil))
	}
	t.Logf("%d MiB there and back in %v", size>>20, time.Since(started).Round(time.Millisecond))
}

// send sends size bytes, which differ in each block, and adds them to sum. Then it ends its direction.
func send(conn *net.TCPConn, size int64, sum hash.Hash) error {
	random := rand.NewChaCha8([32]byte{})
	block := make([]byte, 1<<18)
	for ; size > 0; size -= int64(len(block)) {
		_, _ = random.Read(block)
		_, _ = sum.Write(block)
		if _, err := conn.Write(block); err != nil {
			return err
		}
	}
	return conn.CloseWrite()
}

func TestHalfCloseKeepsTheWholeAnswer(t *testing.T) {
	t.Parallel()
	const answer = 8 << 20
	c := startConsul(t, testconsul.Options{})
	// The instance answers when the client has ended its direction.
	instance := startTCP(t, "a", func(conn *net.TCPConn) error {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			return err
		}
		return send(conn, answer, sha256.New())
	})
	c.register(t, "web", "a", instance.addr)
	l := runLictor(t, consulBlock(c)+service("web"))

	conn := mustConnect(t, l.addr(t, "web"))
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(conn, "a question")
	must(t, err)
	must(t, conn.CloseWrite())
	got, err := io.Copy(io.Discard, conn.reader)
	if got != answer || err != nil {
		t.Errorf("got %d bytes of the answer, %v, want %d", got, err, answer)
	}
}

func TestNoEndpointsIsAResetAndTheFirstRegistrationServes(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		started := time.Now()
		_, err := connect(ctx, web)
		cancel()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a client of a service without endpoints got %v, want a reset", err)
		}
		t.Logf("refused in %v", time.Since(started).Round(time.Microsecond))
	}

	addr := startEcho(t, "a").addr
	c.register(t, "web", "a", addr)
	registered := time.Now()
	eventually(t, "the first instance serves", func() error {
		_, err := ask(t.Context(), web)
		return err
	})
	t.Logf("served %v after the first registration", time.Since(registered).Round(time.Millisecond))
}
