//go:build unix

package upgrade

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/proxy"
)

// offered starts a predecessor that runs say, and returns the result of FindPredecessor.
func offered(t *testing.T, say func(c *conn)) (*Predecessor, *conn, error) {
	t.Helper()
	ours, file, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ours.close)
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if say == nil {
		ours.close()
	} else {
		go say(ours)
	}
	p, err := FindPredecessor(func(name string) string {
		return map[string]string{variable: strconv.Itoa(fd)}[name]
	})
	if p != nil {
		t.Cleanup(func() { p.Failed(errors.New("the test is over")) })
	}
	return p, ours, err
}

// anyFile returns a file to pass.
func anyFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestNoPredecessor(t *testing.T) {
	p, err := FindPredecessor(func(string) string { return "" })
	if p != nil || err != nil {
		t.Fatalf("got %v, %v", p, err)
	}
	p.Failed(errors.New("the predecessor has ended"))
	if file, address := p.Admin(); p.Sockets() != nil || p.State().PID != 0 || file != nil || address != "" {
		t.Error("an offer without a predecessor")
	}
	for _, text := range []string{"x", "-1", "99999"} {
		if _, err := FindPredecessor(func(string) string { return text }); err == nil ||
			!strings.Contains(err.Error(), variable) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// An invalid offer is refused, and the predecessor receives the reason.
func TestOfferThatIsRefused(t *testing.T) {
	f := anyFile(t)
	for _, tt := range []struct {
		name  string
		offer message
		fds   int
		want  string
	}{
		{"another version", message{Kind: kindOffer, Version: 9}, 0, "uses version 9 of the hand-over, this one 1"},
		{"another kind", message{Kind: kindGo, Version: 1}, 0, "uses version 1"},
		{"too few descriptors", message{Kind: kindOffer, Version: 1, Sockets: []socket{{}, {}}}, 1, "restart instead"},
		{"no address", message{Kind: kindOffer, Version: 1, Sockets: []socket{{Protocol: "tcp", Addr: "x"}}}, 1,
			`has the address "x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent := make(chan error, 1)
			_, c, err := offered(t, func(c *conn) {
				fds := make([]int, tt.fds)
				for i := range fds {
					fds[i] = int(f.Fd())
				}
				sent <- c.send(tt.offer, fds...)
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err := testproc.Receive(t, "the offer", sent); err != nil {
				t.Fatal(err)
			}
			var m message
			if _, err := c.receive(&m); err != nil || m.Kind != kindFailed || !strings.Contains(m.Reason, tt.want) {
				t.Errorf("the predecessor hears %+v, %v", m, err)
			}
		})
	}
}

func TestPredecessorThatEnds(t *testing.T) {
	if _, _, err := offered(t, nil); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("got %v", err)
	}
	p, c, err := offered(t, func(c *conn) { _ = c.send(message{Kind: kindOffer, Version: protocolVersion}) })
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	if _, err := p.Sessions(Build{}, false); err == nil || !strings.Contains(err.Error(), "the earlier process") {
		t.Errorf("sessions: got %v", err)
	}
	if _, err := p.Serving(); err == nil {
		t.Error("Serving returned success although nothing was released")
	}
}

// A message of another kind instead of sessions is an error, and descriptors received before it are closed.
func TestSessionsThatDoNotFit(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(c *conn, fd int) error
		want string
	}{
		{"another kind", func(c *conn, _ int) error { return c.send(message{Kind: kindMain}) },
			`sent "main" with 0 descriptors`},
		{"no descriptor", func(c *conn, _ int) error {
			return c.send(message{Kind: kindSessions, Sessions: make([]proxy.Session, 1)})
		}, `sent "sessions" with 0 descriptors`},
		{"go with a descriptor", func(c *conn, fd int) error { return c.send(message{Kind: kindGo}, fd) },
			`sent "go" with 1`},
		{"the end", func(c *conn, _ int) error { c.close(); return nil }, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The write end of a pipe is passed as the first session. Reading from the pipe shows when the write end is
			// closed.
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = read.Close() }()
			said := make(chan error, 1)
			p, _, err := offered(t, func(c *conn) {
				err := c.send(message{Kind: kindOffer, Version: protocolVersion})
				if err == nil {
					_, err = c.receive(new(message))
				}
				if err == nil {
					err = c.send(message{Kind: kindSessions, Sessions: make([]proxy.Session, 1)}, int(write.Fd()))
				}
				if err == nil {
					err = tt.then(c, int(write.Fd()))
				}
				_ = write.Close()
				said <- err
			})
			if err != nil {
				t.Fatal(err)
			}
			if all, err := p.Sessions(Build{}, false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", all, err, tt.want)
			}
			if err := testproc.Receive(t, "what is said", said); err != nil {
				t.Fatal(err)
			}
			closed := make(chan error, 1)
			go func() {
				_, err := read.Read(make([]byte, 1))
				closed <- err
			}()
			if err := testproc.Receive(t, "the end of the pipe", closed); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func TestPredecessorThatSaysSomethingElseAtTheEnd(t *testing.T) {
	p, c, err := offered(t, func(c *conn) { _ = c.send(message{Kind: kindOffer, Version: protocolVersion}) })
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = c.receive(new(message))
		_ = c.send(message{Kind: kindGo})
	}()
	if _, err := p.Serving(); err == nil || err.Error() != `it sent "go"` {
		t.Errorf("got %v", err)
	}
}
