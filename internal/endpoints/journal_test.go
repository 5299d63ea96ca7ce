package endpoints

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

// A logText collects log lines.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines returns the lines since the last call.
func (l *logText) lines() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	l.text.Reset()
	return lines
}

// loggedEvents returns Events that log to the returned logText.
func loggedEvents() (*Events, *logText) {
	log := &logText{}
	l := NewEvents()
	l.LogTo(hclog.New(&hclog.LoggerOptions{Output: log, DisableTime: true}))
	return l, log
}

// Each update of a service is a line for those that joined and one for those that left. An ejection and a drain are a
// line each, and so are their ends.
func TestWhatHappensToEndpointsIsLogged(t *testing.T) {
	events, log := loggedEvents()
	s := NewSets(lb.NewRoundRobin(), events, nil)
	s.OnUpdate([]lb.Endpoints{setOf("web", 1, 2, 3, 4, 5, 6, 7)})
	s.OnUpdate([]lb.Endpoints{setOf("web", 1, 2, 8)})
	if _, err := s.Drain("web", "1", Order{By: "alice", Reason: "new disk", For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := s.Undrain("web", "1", "bob", ""); err != nil {
		t.Fatal(err)
	}
	events.Health(lb.HealthChange{Service: "web", Endpoint: "2", Ejected: true, Cause: lb.Refused})
	events.Health(lb.HealthChange{Service: "web", Endpoint: "2"})
	events.Add(Event{Kind: KindReload, Text: "logged elsewhere"})
	want := []string{
		`[INFO]  endpoints joined: service=web number=7 endpoints="1 at 127.0.0.1:1, 2 at 127.0.0.1:2, ` +
			`3 at 127.0.0.1:3, 4 at 127.0.0.1:4, 5 at 127.0.0.1:5 and 2 more"`,
		`[INFO]  endpoints joined: service=web number=1 endpoints="8 at 127.0.0.1:8"`,
		`[INFO]  endpoints left: service=web number=5 endpoints="3 at 127.0.0.1:3, 4 at 127.0.0.1:4, ` +
			`5 at 127.0.0.1:5, 6 at 127.0.0.1:6, 7 at 127.0.0.1:7"`,
		`[INFO]  endpoint drained: service=web endpoint=1 ` +
			`detail="gets no new clients for 1h0m0s; drained by alice: new disk"`,
		`[INFO]  endpoint undrained: service=web endpoint=1 detail="gets clients again; undrained by bob"`,
		`[INFO]  endpoint ejected: service=web endpoint=2 detail="is ejected: refused; it is tried again in 0s"`,
		`[INFO]  endpoint gets clients again: service=web endpoint=2 detail="can be reached again"`,
	}
	if diff := cmp.Diff(want, log.lines()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// A storm of changes of many services is cut short: the log says how many more there were. What an operator does in the
// storm is logged.
func TestAStormIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events, log := loggedEvents()
		for i := range 5000 {
			name := fmt.Sprintf("s%04d", i)
			events.Add(Event{Kind: KindJoined, Service: name, Text: "a"},
				Event{Kind: KindJoined, Service: name, Text: "b"})
		}
		events.Add(Event{Kind: KindDrained, Service: "s4999", Endpoint: "a", Text: "a is drained"})
		lines := log.lines()
		if n := len(lines); n != allLines+1 || !strings.Contains(lines[n-1], "endpoint drained: service=s4999") {
			t.Errorf("%d lines at once, the last is %q", n, lines[n-1])
		}
		time.Sleep(restAfter)
		synctest.Wait()
		want := []string{`[INFO]  more endpoints joined: number=9900 services=4950 ` +
			`of="s0050, s0051, s0052, s0053, s0054 and 4945 more"`}
		if diff := cmp.Diff(want, log.lines()); diff != "" {
			t.Errorf("about the rest (-want +got):\n%s", diff)
		}
	})
}

// A service that flaps for an hour has about a line a minute, and so has the rest. It costs other services no line.
func TestAServiceThatFlapsIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events, log := loggedEvents()
		ejected := 0
		for range 3600 {
			events.Health(lb.HealthChange{Service: "flaps", Endpoint: "a", Ejected: true, Cause: lb.Refused})
			ejected++
			time.Sleep(time.Second)
		}
		lines := log.lines()
		if n := len(lines); n > 2*60+serviceLines+1 || n < 2*60-2 {
			t.Errorf("%d lines in an hour", n)
		}
		events.Add(Event{Kind: KindLeft, Service: "web", Text: "a"})
		if got := log.lines(); len(got) != 1 {
			t.Errorf("another service has the lines %q", got)
		}
		events.EndLog()
		for _, line := range append(lines, log.lines()...) {
			var more int
			if _, rest, is := strings.Cut(line, "more endpoints ejected: number="); is {
				_, _ = fmt.Sscan(rest, &more)
				ejected -= more
			} else if strings.Contains(line, "endpoint ejected") {
				ejected--
			}
		}
		if ejected != 0 {
			t.Errorf("%d ejections are neither logged nor counted", ejected)
		}
		events.Add(Event{Kind: KindLeft, Service: "web", Text: "b"})
		if got := log.lines(); len(got) != 0 {
			t.Errorf("after the end: %q", got)
		}
	})
}

// The Judge logs its verdicts itself.
func TestVerdictsAreNotLogged(t *testing.T) {
	events, log := loggedEvents()
	verdicts := map[string]cycles.Verdict{"1": {Reason: cycles.Loop}}
	s := NewSets(lb.NewRoundRobin(), events, judgeOf(func(lb.Endpoints) map[string]cycles.Verdict { return verdicts }))
	s.OnUpdate([]lb.Endpoints{setOf("web", 1)})
	verdicts = nil
	s.Reconsider()
	if got := textsOf(events, KindReturned); len(got) != 1 {
		t.Fatalf("got the events %q, want that 1 returns", got)
	}
	if got := log.lines(); len(got) != 1 || !strings.Contains(got[0], "joined") {
		t.Errorf("got %q, want only that 1 joined", got)
	}
}

// Limits of services that are quiet again are forgotten.
func TestLimitsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events, _ := loggedEvents()
		for i := range 10 * pruneLimits {
			events.Add(Event{Kind: KindLeft, Service: fmt.Sprint(i), Text: "a"})
			time.Sleep(time.Second)
		}
		if n := len(events.journal.limits); n > pruneLimits {
			t.Errorf("%d limits are kept", n)
		}
		events.EndLog()
	})
}
