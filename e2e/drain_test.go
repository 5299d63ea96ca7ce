//go:build unix

package e2e

import (
	"os"
	"os/user"
	"regexp"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// userName returns the name of the user that runs this test, and so of each request over the admin socket.
func userName(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	must(t, err)
	return u.Username
}

// A drain goes over to the next process with its operator, its reason and its end, and ends there. The events go over
// too: those of the former process, and no new ones for endpoints that are still there.
func TestDrainGoesOverAtAnUpgrade(t *testing.T) {
	anyEngine(t)
	c := startConsul(t, testconsul.Options{Node: "host-1"})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	d := found(t, consulBlock(c)+service("web"))
	now := &lictor{runtime: d.runtime} // whichever process answers
	web := d.addr(t, "web")
	awaitRotation(t, web, "a", "b", "c")
	d.post(t, "/v1/services/web/drain", `{"endpoint": "host-1/a", "reason": "new disk"}`)
	d.post(t, "/v1/services/web/drain", `{"endpoint": "host-1/b", "for": "3s"}`)
	d.upgrade(t)
	by := userName(t)
	now.awaitAnswer(t, "explain web", 0, "drained by "+by+", in this Lictor only: new disk")
	now.awaitAnswer(t, "events web", 0, "host-1/b gets clients again, the time of its drain is over; drained by "+by)
	awaitRotation(t, web, "b", "c")
	log, err := os.ReadFile(d.err)
	must(t, err)
	for line, want := range map[string]int{
		`"endpoint drained".*"gets no new clients until it is undrained; drained by ` + by +
			`: new disk".*host-1/a"`: 1,
		`"endpoint undrained".*host-1/b"`: 1,
		`"endpoints joined"`:              1,
	} {
		if n := len(regexp.MustCompile(line).FindAll(log, -1)); n != want {
			t.Errorf("%s is %d times in the log, want %d:\n%s", line, n, want, log)
		}
	}
	_, out := now.ask(t, "events", "web")
	for text, want := range map[string]int{
		"host-1/a gets no new clients until it is undrained; drained by " + by + ": new disk": 1,
		"joined": 3, "left": 0, "host-1/a gets clients again": 0,
	} {
		if n := strings.Count(out, text); n != want {
			t.Errorf("%q is there %d times, want %d, in:\n%s", text, n, want, out)
		}
	}
}

// An operator drains and undrains an instance by commands, and does not drain the last one by mistake.
func TestDrainByCommand(t *testing.T) {
	anyEngine(t)
	c := startConsul(t, testconsul.Options{Node: "host-1"})
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a", "b")
	l.awaitAnswer(t, "drain -for 1h -reason disk host-1/a", 0, `drained host-1/a of service "web" until `)
	awaitRotation(t, web, "b")
	if code, out := l.ask(t, "drain", "host-1/b"); code != 1 || !strings.Contains(out, "Add -force") {
		t.Errorf("exit code %d: %s", code, out)
	}
	l.awaitAnswer(t, "status web", 0, "drained by "+userName(t), "disk")
	l.awaitAnswer(t, "undrain host-1/a", 0, `undrained host-1/a of service "web"`)
	awaitRotation(t, web, "a", "b")
	l.awaitAnswer(t, "events web", 0, "undrained by "+userName(t))
}
