//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// ask runs a command that asks l, and returns the command's exit code and output.
func (l *lictor) ask(t testing.TB, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(lictorPath(t), args...)
	cmd.Env = append(environment(), "RUNTIME_DIRECTORY="+l.runtime)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	must(t, err)
	return 0, string(out)
}

// awaitAnswer runs a command until its output contains all of want and it exits with code.
func (l *lictor) awaitAnswer(t testing.TB, args string, code int, want ...string) {
	t.Helper()
	eventually(t, "lictor "+args, func() error {
		got, out := l.ask(t, strings.Fields(args)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				return fmt.Errorf("no %q in:\n%s", w, out)
			}
		}
		if got != code {
			return fmt.Errorf("exit code %d, want %d:\n%s", got, code, out)
		}
		return nil
	})
}

// An operator sees instances that come and go, connections, and since when Consul is lost.
func TestOperatorSeesWhatIsGoingOn(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	l := runLictor(t, consulBlock(c)+service("web"))
	l.awaitAnswer(t, "status", 4, "ready", "1 service (1 refuses clients), 0 endpoints in")
	l.awaitAnswer(t, "explain web", 1, "0 of 0 known endpoints")

	c.register(t, "web", "a", startEcho(t, "a").addr, checked)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	l.awaitAnswer(t, "explain web", 0, "2 of 2 known endpoints get clients", "/a at 127.0.0.1:", "healthy for")
	mustConnect(t, l.addr(t, "web"))
	l.awaitAnswer(t, "status", 0, "1 connection,")

	log := &testproc.Log{}
	cmd := exec.Command(lictorPath(t), "events", "-f", "-n", "0", "-json", "web")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(environment(), "RUNTIME_DIRECTORY="+l.runtime), log, log
	events, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(events.Kill)
	// Each turn makes an event, until the command has printed one.
	status := []string{api.HealthCritical, api.HealthPassing}
	turn := 0
	eventually(t, "an event that is followed", func() error {
		c.setHealth(t, "a", status[turn%2])
		turn++
		if !strings.Contains(log.String(), `"kind":"left"`) {
			return fmt.Errorf("got %s", log)
		}
		return nil
	})
	c.setHealth(t, "a", api.HealthCritical)
	l.awaitAnswer(t, "explain web", 0, "left", "/a at 127.0.0.1:")

	c.Kill()
	l.awaitAnswer(t, "status", 1, "the source fails, its endpoints stay in use")
	l.awaitAnswer(t, "status web", 1, "the source fails", "/b")
	l.awaitAnswer(t, "events", 0, "stale", "Consul does not answer since", "keeps its last endpoints")
	must(t, c.Restart(t.Context()))
	l.awaitAnswer(t, "status", 0, "ready")
}

// An instance that refuses connections is ejected although it is healthy in Consul, and explain says so.
func TestExplainTellsWhatFailsFromHere(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	c.register(t, "web", "dead", deadAddr(t))
	l := runLictor(t, consulBlock(c)+service("web"))
	eventually(t, "dead is ejected", func() error {
		if _, err := ask(t.Context(), l.addr(t, "web")); err != nil {
			return err
		}
		if _, out := l.ask(t, "explain", "web"); !strings.Contains(out, "ejected") ||
			!strings.Contains(out, "refused") {
			return errors.New(out)
		}
		return nil
	})
	l.awaitAnswer(t, "explain web", 0, "2 of 3 known endpoints", "ejected",
		"test/dead is ejected: refused; it is tried again in")
}

// lictor connections lists connections and sessions, and filters them by service and endpoint.
func TestConnectionsAreListed(t *testing.T) {
	t.Parallel()
	a, b, d := startEcho(t, "a"), startEcho(t, "b"), startUDP(t, "d")
	l := runLictor(t, service("web", endpoints(a, b))+service("dns", udp, endpoints(d)))
	for range 2 {
		must(t, mustConnect(t, l.addr(t, "web")).echo("hello"))
	}
	client := dialUDP(t, l.addr(t, "dns"))
	_, err := client.exchange([]byte("hello"))
	must(t, err)

	if code, out := l.ask(t, "connections"); code != 0 || strings.Count(out, "\n") != 4 ||
		!strings.Contains(out, client.LocalAddr().String()) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	code, out := l.ask(t, "connections", "-json", "-endpoint", a.addr.String(), "web")
	var answer struct {
		Connections []struct {
			Endpoint, State string
			BytesUp         int64 `json:"bytes_up"`
		}
	}
	must(t, json.Unmarshal([]byte(out), &answer))
	if code != 0 || len(answer.Connections) != 1 || answer.Connections[0].Endpoint != a.addr.String() ||
		answer.Connections[0].State != "open" || answer.Connections[0].BytesUp != 6 {
		t.Errorf("exit code %d, got %+v", code, answer)
	}
	if code, out := l.ask(t, "connections", "wbe"); code != 1 || !strings.Contains(out, `did you mean "web"?`) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if code, out := l.ask(t, "connections", "-endpoint", "x"); code != 1 || !strings.Contains(out, `no endpoint "x"`) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// The access log has a line for each connection, which says which side ended it.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	i := startEcho(t, "a")
	l := runLictor(t, fmt.Sprintf("access_log { path = %q }\n", path)+service("web",
		fmt.Sprintf("static { endpoints = [%q] }", i.addr)))
	c := mustConnect(t, l.addr(t, "web"))
	must(t, c.echo("hello"))
	must(t, c.Close())
	var line struct {
		Service, Endpoint, By, End string
		Up, Down                   int64
		Connect, Duration          float64
	}
	eventually(t, "a line", func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &line)
	})
	if line.Service != "web" || line.Endpoint != i.addr.String() || line.By != "client" || line.Up != 6 ||
		line.Down != 8 || line.Connect <= 0 || line.Duration < line.Connect {
		t.Errorf("got %+v", line)
	}
}

// The access log has a line for each UDP session, too, with the numbers of datagrams.
func TestAccessLogOfSessions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	i := startUDP(t, "a")
	l := runLictor(t, fmt.Sprintf("access_log { path = %q }\n", path)+service("dns",
		udp, "responses = 1", endpoints(i)))
	client := dialUDP(t, l.addr(t, "dns"))
	_, err := client.Write([]byte("hello"))
	must(t, err)
	client.receive(t)
	var line struct {
		Service, Protocol, Client, Endpoint, By, End string
		Up, Down                                     int64
		DatagramsUp                                  int64 `json:"datagrams_up"`
		DatagramsDown                                int64 `json:"datagrams_down"`
	}
	eventually(t, "a line", func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &line)
	})
	if line.Service != "dns" || line.Protocol != "udp" || line.Client != client.LocalAddr().String() ||
		line.Endpoint != i.addr.String() ||
		line.By != "lictor" || line.End != "answered" || line.Up != 5 || line.Down != 5 || line.DatagramsUp != 1 ||
		line.DatagramsDown != 1 {
		t.Errorf("got %+v", line)
	}
}

// lictor reload waits for the result of the reload, and returns it as its exit code. As after a signal, status and
// events show the result, too.
func TestReloadByCommand(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	web, api, a := freePort(t), freePort(t), startEcho(t, "a")
	l := runLictor(t, serviceAt("web", web, endpoints(a)))
	l.configure(t, serviceAt("web", web, endpoints(a))+serviceAt("api", api, endpoints(a)))
	if code, out := l.ask(t, "reload"); code != 0 || out != "reloaded: 1 service added\n" {
		t.Errorf("exit code %d, want 0:\n%s", code, out)
	}
	must(t, mustConnect(t, api).echo("served"))

	l.configure(t, serviceAt("web", web, endpoints(a), `idle_timeout = "soon"`))
	if code, out := l.ask(t, "reload"); code != 1 || !strings.Contains(out, "lictor.hcl:") ||
		!strings.Contains(out, "idle_timeout") {
		t.Errorf("exit code %d, want 1 and the place of the problem:\n%s", code, out)
	}
	must(t, mustConnect(t, api).echo("served still"))

	l.mustReload(t, serviceAt("web", web, endpoints(a)))
	awaitRefusal(t, api)
	code, out := l.ask(t, "events")
	if code != 0 || strings.Count(out, "reload") < 3 {
		t.Errorf("exit code %d, want 0 and all three reloads:\n%s", code, out)
	}
}
