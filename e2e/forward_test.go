//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestForwardNeedsNoConfiguration(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr, tags("v1"))
	c.register(t, "web", "b", startEcho(t, "b").addr, tags("v2"))
	c.register(t, "dns", "d", startUDP(t, "d").addr)
	web := freePort(t)
	var ports []string
	for range 2 {
		l := &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}}
		cmd := exec.Command(lictorPath(t), "forward", "-consul",
			c.HTTP, "web:"+web.String()[len("127.0.0.1:"):], "dns/udp")
		cmd.Env = environment()
		cmd.Stdout, cmd.Stderr = l.stdout, l.stderr
		var err error
		l.Process, err = testproc.Start(cmd)
		must(t, err)
		t.Cleanup(func() { l.cleanup(t) })
		eventually(t, "a line for each", func() error {
			if len(l.stdout.Lines()) < 2 {
				return errors.New(l.stderr.String())
			}
			return nil
		})
		if got := l.addr(t, "web"); got != web {
			t.Errorf("web: got %v, want %v", got, web)
		}
		awaitRotation(t, web, "a", "b")
		dialUDP(t, l.addr(t, "dns")).awaitAnswer(t, "d")
		ports = append(ports, l.addr(t, "dns").String())
		eventually(t, "the live line", func() error {
			for _, line := range l.stderr.Lines() {
				if len(line) > 4 && line[:4] == "dns:" {
					return nil
				}
			}
			return errors.New(l.stderr.String())
		})
		must(t, l.Signal(syscall.SIGINT))
		l.exits(t, 0)
	}
	if ports[0] != ports[1] {
		t.Errorf("got the ports %v, want the same twice", ports)
	}
}

// On a terminal each service keeps a line of its own, however narrow the terminal is, and messages stay above the
// lines. Beside a running lictor, forward has nothing to warn of.
func TestForwardOfSeveralServicesInATerminal(t *testing.T) {
	anyEngine(t)
	c := startConsul(t, testconsul.Options{})
	daemon := runLictor(t, consulBlock(c)+service("web"))
	names := []string{"web", "payments-ledger", "payments-ledger-reconciliation-worker"}
	for _, name := range names {
		c.register(t, name, name, startEcho(t, name).addr, tags("v1"))
	}
	port := freePort(t)
	command := fmt.Sprintf("%s forward -consul %s -tag v1 web:%d %s %s nosuch paymnts-ledger",
		lictorPath(t), c.HTTP, port.Port(), names[1], names[2])
	x := startTerminal(t, 60, 16, daemon, command)
	x.shows("web: 0 open of 0", `there is no service "nosuch" in Consul`, `did you mean "payments-ledger"?`)
	for i := range 3 {
		mustConnect(t, port)
		x.shows(fmt.Sprintf("web: %d open of %d", i+1, i+1))
	}
	screen := sgr.ReplaceAllString(x.shows("nosuch: 0"), "")
	for _, text := range []string{"web: ", "payments-ledger: ", "payments-ledger-reconciliation-worker: ", "nosuch: ",
		"paymnts-ledger: ", `"nosuch" in Consul`} {
		if n := strings.Count(screen, text); n != 1 {
			t.Errorf("%q is %d times on the screen, want once:\n%s", text, n, screen)
		}
	}
	if strings.Contains(screen, "WARN") || strings.Contains(screen, "admin") {
		t.Errorf("forward warns:\n%s", screen)
	}
	daemon.awaitAnswer(t, "status", 0, "1 service,")
	x.press("C-c")
}
