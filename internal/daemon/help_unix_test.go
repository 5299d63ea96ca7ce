//go:build unix

package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A served is a daemon that runs in this process, with its own channel of signals.
type served struct {
	*Daemon
	t       *testing.T
	path    string // path of its configuration
	signals chan os.Signal
	end     chan error
	output  *Output
	log     *testproc.Log // the daemon's output
}

// serveConfiguration runs a daemon with src as its configuration, until a signal ends it. The function prepare may
// change the daemon before it handles signals; nil changes nothing.
func serveConfiguration(t *testing.T, src string, prepare func(*served)) *served {
	t.Helper()
	s := newServed(t, src)
	s.start(Options{}, prepare)
	return s
}

// start starts the daemon. It sets the configuration, output and version in o. The start must succeed.
func (s *served) start(o Options, prepare func(*served)) {
	s.t.Helper()
	if err := s.tryStart(o, prepare); err != nil {
		s.t.Fatalf("%v\n%s", err, s.log)
	}
}

func (s *served) tryStart(o Options, prepare func(*served)) error {
	s.t.Helper()
	cfg, diags := s.load()
	if cfg == nil {
		s.t.Fatal(diags.Diagnostics)
	}
	s.output = NewOutput(s.log, s.log)
	s.t.Cleanup(s.output.Close)
	o.Config, o.Diagnostics, o.Load, o.Output, o.Version = cfg, diags, s.load, s.output, "v0"
	started := make(chan error, 1)
	go func() {
		s.end <- run(o.Predecessor, s.signals, func(ctx context.Context) (*Daemon, error) {
			d, err := Start(ctx, o)
			if s.Daemon = d; err == nil && prepare != nil {
				prepare(s)
			}
			started <- err
			return d, err
		})
	}()
	err := testproc.Receive(s.t, "the start", started)
	if err == nil { // an earlier signal would be a signal during the start
		testproc.Await(s.t, "a daemon that takes signals", s.obeying.Load)
	}
	return err
}

// newServed returns a served without a started daemon.
func newServed(t *testing.T, src string) *served {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	processors := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	s := &served{
		t: t, path: filepath.Join(t.TempDir(), "lictor.hcl"), signals: make(chan os.Signal, 8), end: make(chan error,
			1),
		log: &testproc.Log{},
	}
	s.write(src)
	return s
}

func (s *served) load() (*config.Config, config.Diagnostics) {
	return config.Load([]string{s.path}, config.Options{Getenv: func(string) string { return "" }})
}

// write replaces the text of the configuration.
func (s *served) write(src string) {
	s.t.Helper()
	if err := os.WriteFile(s.path, []byte(src), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// reload reloads with src, and returns the result.
func (s *served) reload(src string) (string, error) {
	s.t.Helper()
	s.write(src)
	return s.Reload(s.t.Context())
}

// mustReload is reload, which must succeed with this summary.
func (s *served) mustReload(src, summary string) {
	s.t.Helper()
	if got, err := s.reload(src); err != nil || got != summary {
		s.t.Fatalf("got %q, %v, want %q", got, err, summary)
	}
}

// address returns the listen address of a service, or an empty string.
func (s *served) address(service string) string {
	for _, l := range s.proxier.Listeners() {
		if l.Service == service {
			return l.Addr.String()
		}
	}
	return ""
}

// stop ends the daemon with two signals, which cut open connections. It must succeed.
func (s *served) stop() {
	s.t.Helper()
	s.signals <- syscall.SIGTERM
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(s.t, "the end", s.end); err != nil {
		s.t.Errorf("%v:\n%s", err, s.log)
	}
}

func (s *served) awaitLog(text string) {
	s.t.Helper()
	said := func() bool { return strings.Contains(s.log.String(), text) }
	testproc.Await(s.t, fmt.Sprintf("%q in the log", text), said)
}

// instance starts an instance and returns its address. The instance sends its name to each client, and then waits for
// the client to close.
func instance(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				_, _ = fmt.Fprintln(c, name)
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		clients.Wait()
	})
	return l.Addr().String()
}

// A client is a connection to an instance that has sent its name.
type client struct {
	net.Conn
	name string
}

func dial(t *testing.T, addr string) (*client, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, testproc.Patience)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(testproc.Patience))
	var name string
	if _, err := fmt.Fscanln(c, &name); err != nil {
		return nil, err
	}
	return &client{c, name}, nil
}

// reaches fails the test unless a client of addr reaches the instance with this name.
func reaches(t *testing.T, addr, name string) *client {
	t.Helper()
	c, err := dial(t, addr)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	if c.name != name {
		t.Errorf("%s: got instance %q, want %q", addr, c.name, name)
	}
	return c
}

// service returns the text of a service block with one instance.
func service(name, listen, instance, more string) string {
	return fmt.Sprintf("service %q {\n  listen = %q\n  static {\n    endpoints = [%q]\n  }\n  %s\n}\n",
		name, listen, instance, more)
}

const oneService = "service \"web\" {\n  listen = \"127.0.0.1:0\"\n" +
	"  static {\n    endpoints = [\"127.0.0.1:1\"]\n  }\n}\n"
