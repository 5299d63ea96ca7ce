//go:build unix

package e2e

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestForwardNeedsNoConfiguration(t *testing.T) {
	anyEngine(t)
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
