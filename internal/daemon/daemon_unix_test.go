//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/internal/upgrade"
)

func TestExplain(t *testing.T) {
	inUse := fmt.Errorf("listen: %w", syscall.EADDRINUSE)
	for _, tt := range []struct {
		name string
		err  error
		want []string
	}{
		{"one", errors.New("no"), []string{"no"}},
		{"one with a hint", inUse, []string{"something else listens there"}},
		{"no such address", syscall.EADDRNOTAVAIL, []string{"this host has no such address"}},
		{"no right", syscall.EACCES, []string{"CAP_NET_BIND_SERVICE"}},
		{"several", multierror.Append(inUse, errors.New("no")), []string{"something else", "no"}},
		{"several in others", multierror.Append(errors.New("a"),
			fmt.Errorf("%w", multierror.Append(inUse, errors.New("no")))),
			[]string{"a", "something else", "no"}},
	} {
		got := Explain(tt.err)
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %q", tt.name, got)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: got %q, want %q", tt.name, got[i], want)
			}
		}
		if text := withHints(tt.err).Error(); text != strings.Join(got, "\n") {
			t.Errorf("%s: got %q", tt.name, text)
		}
	}
}

func TestTurnIsHadByOne(t *testing.T) {
	turn := newTurn()
	var had, most, now int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if err := turn.take(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now++
				had, most = had+1, max(most, now)
				mu.Unlock()
				mu.Lock()
				now--
				mu.Unlock()
				turn.giveBack()
			}
		})
	}
	all.Wait()
	if had != 800 || most != 1 {
		t.Errorf("the turn was held %d times, by up to %d at once", had, most)
	}
}

func TestTurnThatIsNotGivenBack(t *testing.T) {
	turn := newTurn()
	if !turn.takeWithin(testproc.Patience) {
		t.Fatal("no goroutine has the turn")
	}
	if turn.takeWithin(time.Millisecond) {
		t.Error("two goroutines have the turn")
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() { result <- turn.take(ctx) }()
	cancel(why)
	if err := testproc.Receive(t, "the turn", result); err != why {
		t.Errorf("got %v, want %v", err, why)
	}
	turn.giveBack()
	if err := turn.take(ctx); err != why { // even if the turn is free
		t.Errorf("got %v, want %v", err, why)
	}
}

func TestUnderWay(t *testing.T) {
	if err := underWay(upgrade.ErrEnding); err != upgrade.ErrEnding {
		t.Errorf("got %v", err)
	}
	if err := underWay(context.Canceled); !errors.Is(err, context.Canceled) ||
		!strings.Contains(err.Error(), "under way") {
		t.Errorf("got %v", err)
	}
}

func TestWithin(t *testing.T) {
	if !within(testproc.Patience, func() {}) {
		t.Error("within does not notice that the function has returned")
	}
	never := make(chan struct{})
	defer close(never)
	if within(time.Millisecond, func() { <-never }) {
		t.Error("within reports that a hung function has returned")
	}
}

// Goroutines that Go started end with the daemon, which waits for them.
func TestGoEndsWithTheDaemon(t *testing.T) {
	ran := make(chan struct{})
	s := serveConfiguration(t, oneService, func(s *served) {
		s.Go(func(ctx context.Context) {
			<-ctx.Done()
			close(ran)
		})
	})
	s.stop()
	select {
	case <-ran:
	default:
		t.Error("the daemon did not wait")
	}
}

func TestTraffic(t *testing.T) {
	s := serveConfiguration(t, service("web", "127.0.0.1:0", instance(t, "a"), ""), nil)
	defer s.stop()
	c := reaches(t, s.address("web"), "a")
	testproc.Await(t, "the client's traffic", func() bool {
		got := s.Traffic()
		return len(got) == 1 && got[0] == Traffic{Service: "web", Open: 1, Total: 1, Down: 2}
	})
	_ = c.Close()
	testproc.Await(t, "its end", func() bool { return s.Traffic()[0] == Traffic{Service: "web", Total: 1, Down: 2} })
}

func TestSetLevel(t *testing.T) {
	s := serveConfiguration(t, oneService, nil)
	defer s.stop()
	if err := s.setLevel("loud"); err == nil || !strings.Contains(err.Error(), "use one of") {
		t.Errorf("got %v", err)
	}
	if err := s.setLevel("trace"); err != nil || s.Daemon.log.GetLevel() != hclog.Trace {
		t.Errorf("got %v, %v", err, s.Daemon.log.GetLevel())
	}
}

func TestListenersArePrinted(t *testing.T) {
	src := service("web", "127.0.0.1:0", "127.0.0.1:1", "") +
		"service \"dns\" {\n  listen = \"127.0.0.1:0\"\n  protocol = \"udp\"\n" +
		"  static {\n    endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n  }\n}\n"
	s := serveConfiguration(t, src, nil)
	defer s.stop()
	s.awaitLog("dns  udp " + s.address("dns") + " -> 2 static endpoints\n")
	s.awaitLog("web  tcp " + s.address("web") + " -> 1 static endpoint\n")
}

// The API shows the services of the configuration in force, and makes the list once for each configuration.
func TestConfiguredServicesAreOfTheConfigurationInForce(t *testing.T) {
	s := serveConfiguration(t, oneService, nil)
	defer s.stop()
	first := s.configured()
	if len(first) != 1 || first[0].Name != "web" || first[0].Protocol != "tcp" ||
		first[0].Source != "1 static endpoint" {
		t.Errorf("got %+v", first)
	}
	if again := s.configured(); &again[0] != &first[0] {
		t.Error("the list was made twice")
	}
	s.mustReload(oneService+service("new", "127.0.0.1:0", "127.0.0.1:1", ""), "1 service added")
	if got := s.configured(); len(got) != 2 {
		t.Errorf("after a reload: got %+v", got)
	}
}

// After a signal, connections have shutdown_grace, and then are cut.
func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	s := serveConfiguration(t, "shutdown_grace = \"1ms\"\n"+service("web", "127.0.0.1:0", instance(t, "a"), ""), nil)
	c := reaches(t, s.address("web"), "a")
	s.signals <- syscall.SIGTERM
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Error(err)
	}
	s.awaitLog(`stopped, open connections were cut: reason="shutdown_grace is over"`)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was not cut")
	}
}

// A second signal cuts the open connections, and the log says so. Without any, the log speaks of no connections.
func TestSecondSignalCuts(t *testing.T) {
	src := "shutdown_grace = \"1h\"\n" + service("web", "127.0.0.1:0", instance(t, "a"), "")
	busy := serveConfiguration(t, src, nil)
	reaches(t, busy.address("web"), "a")
	busy.stop()
	for _, want := range []string{
		"cutting connections at once", `stopped, open connections were cut: reason="second signal"`,
	} {
		if !strings.Contains(busy.log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, busy.log)
		}
	}
	idle := serveConfiguration(t, src, nil)
	idle.stop()
	if strings.Contains(idle.log.String(), "cut") {
		t.Errorf("nothing is open, but the log says that it was cut:\n%s", idle.log)
	}
}

// If all connections end early, the process ends without waiting for shutdown_grace.
func TestStopWaitsForConnections(t *testing.T) {
	s := serveConfiguration(t, "shutdown_grace = \"1h\"\n"+service("web", "127.0.0.1:0", instance(t, "a"), ""), nil)
	c := reaches(t, s.address("web"), "a")
	s.signals <- syscall.SIGTERM
	s.awaitLog("stopping: signal=terminated grace=1h0m0s")
	if _, err := fmt.Fprintln(c, "still here"); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if err := testproc.Receive(t, "the end", s.end); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String(), "was cut") {
		t.Errorf("a connection was cut:\n%s", s.log)
	}
}

// The status line for systemd follows the daemon's state.
func TestStatusSaysWhetherAllIsReady(t *testing.T) {
	s := serveConfiguration(t, oneService, nil)
	defer s.stop()
	if got := s.status(); got != "serving 1 service" {
		t.Errorf("got %q", got)
	}
	waiting := serveConfiguration(t,
		"consul {\n  address = \"127.0.0.1:1\"\n}\nservice \"web\" {\n  listen = \"127.0.0.1:0\"\n}\n", nil)
	defer waiting.stop()
	if got := waiting.status(); !strings.Contains(got, "some still wait for an answer") {
		t.Errorf("got %q", got)
	}
}

func TestFirstLine(t *testing.T) {
	for text, want := range map[string]string{"": "", "a": "a", "a\nb": "a"} {
		if got := firstLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestAdminListenerIsKept(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	l, err := openAdmin(config.Admin{}, nil, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	socket := l.Addr().String()
	for _, tt := range []struct {
		name string
		cfg  config.Admin
		want bool
	}{
		{"default", config.Admin{}, true},
		{"its path", config.Admin{Socket: socket}, true},
		{"other rules", config.Admin{Socket: socket, TokenFile: "/x"}, true},
		{"another path", config.Admin{Socket: socket + "2"}, false},
		{"off", config.Admin{Off: true}, false},
	} {
		a := &adminServer{listener: l}
		if got := a.keeps(tt.cfg); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	off := &adminServer{cfg: config.Admin{Off: true}}
	if !off.keeps(config.Admin{Off: true}) || off.keeps(config.Admin{}) {
		t.Error("keeps is wrong for an API that is off")
	}
	if got := off.address(); got != "" {
		t.Errorf("the API is off, but has the address %q", got)
	}
}
