//go:build unix

package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// needTool finds a program that a test needs. Without the program it skips the test, or fails it in CI.
func needTool(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	testproc.Cannot(t, "there is no "+strings.Join(names, ", no "), errors.New(`"make browser" installs it`))
	panic("unreachable")
}

// A terminal is one of tmux, which programs cannot tell from any other terminal.
type terminal struct {
	testing.TB
	tmux, socket string
}

// startTerminal runs a shell command in a terminal of the given size.
func startTerminal(t testing.TB, width, height int, l *lictor, command string) *terminal {
	t.Helper()
	x := &terminal{TB: t, tmux: needTool(t, "tmux"), socket: filepath.Join(shortTempDir(t), "tmux")}
	if out, err := x.run("new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), "env",
		"RUNTIME_DIRECTORY="+l.runtime, "sh", "-c", command); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = x.run("kill-server") })
	return x
}

func (x *terminal) run(args ...string) (string, error) {
	cmd := exec.Command(x.tmux, append([]string{"-S", x.socket, "-f", "/dev/null"}, args...)...)
	cmd.Env = append(environment(), "TERM=screen", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shows waits until the screen contains all the texts, and returns the screen with its colours.
func (x *terminal) shows(want ...string) string {
	x.Helper()
	var coloured string
	eventually(x, fmt.Sprintf("a screen with %q", want), func() error {
		var err error
		coloured, err = x.run("capture-pane", "-e", "-N", "-p")
		screen := sgr.ReplaceAllString(coloured, "")
		for _, w := range want {
			if !strings.Contains(screen, w) {
				return fmt.Errorf("%v, got:\n%s", err, screen)
			}
		}
		return err
	})
	return coloured
}

func (x *terminal) press(keys ...string) {
	x.Helper()
	for _, key := range keys {
		_, err := x.run("send-keys", key)
		must(x, err)
	}
}

// Top draws again as soon as the size of the terminal changes.
func TestTopFollowsTheSizeOfATerminal(t *testing.T) {
	anyEngine(t)
	l := runLictor(t, service("web", `static { endpoints = ["127.0.0.1:1"] }`))
	x := startTerminal(t, 60, 12, l, lictorPath(t)+" top -interval 1h; exec cat")
	if screen := x.shows("REFUSED/S", "web"); strings.Contains(screen, "LATENCY") {
		t.Errorf("all columns in 60 characters:\n%s", screen)
	}
	_, err := x.run("resize-window", "-x", "160", "-y", "12")
	must(t, err)
	x.shows("LATENCY", "web")
	x.press("q")
}

// top draws in a real terminal, obeys keys, and restores the terminal at its end.
func TestTopInATerminal(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	l := runLictor(t, service("web", `static { endpoints = ["127.0.0.1:1"] }`)+service("zoo",
		`static { endpoints = ["127.0.0.1:2"] }`))
	x := startTerminal(t, 130, 12, l, lictorPath(t)+" top; echo ended with $?; exec cat")
	x.shows("2 services, 2 in, 0 out", "[a active]", "web", "zoo")
	x.press("n")
	x.shows("[n name]")
	x.press("Down", "Enter")
	x.shows("in  127.0.0.1:1")
	x.press("q")
	x.shows("ended with 0")
}

// Lictor may be restarted while top runs. Top says so, and shows the new process.
func TestTopSurvivesARestartOfLictor(t *testing.T) {
	anyEngine(t)
	socket := "unix://" + filepath.Join(shortTempDir(t), "admin.sock")
	config := fmt.Sprintf("admin {\n  listen = %q\n}\n", socket) +
		service("web", `static { endpoints = ["127.0.0.1:1"] }`)
	l := runLictor(t, config)
	x := startTerminal(t, 80, 24, l, lictorPath(t)+" top -admin "+socket+"; echo ended with $?; exec cat")
	x.shows("1 service, 1 in, 0 out", "web")
	must(t, l.Signal(syscall.SIGTERM))
	l.exits(t, 0)
	x.shows("no answer since", "web")
	again := runLictor(t, config)
	x.shows(fmt.Sprintf("process %d (lictor", again.Pid()), "web")
	x.shows("1 service, 1 in, 0 out")
	x.press("Escape") // does not quit
	x.press("?")
	x.shows("Any key closes this help.")
	x.press("Escape")
	x.shows("SERVICE", "web")
	x.press("q")
	x.shows("ended with 0")
}

// top shows in red what is wrong. With -screenshots the test writes the picture of top for the README.
func TestTopShowsWhatIsWrongInRed(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{Node: "host-1"})
	l := runLictor(t, consulBlock(c)+service("web")+service("postgres")+service("redis")+service("dns",
		`protocol = "udp"`)+service("legacy", `static { endpoints = ["10.0.0.5:80"] }`))
	for _, name := range []string{"web-1", "web-2", "web-3", "web-4"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked)
	}
	c.register(t, "web", "web-5", deadAddr(t))
	c.register(t, "postgres", "postgres-1", startEcho(t, "pg").addr)
	for _, name := range []string{"dns-1", "dns-2"} {
		c.register(t, "dns", name, startUDP(t, name).addr)
	}
	must(t, c.api.Agent().UpdateTTL("check:web-4", "GET /health: 503 Service Unavailable", api.HealthCritical))
	eventually(t, "web is served", func() error { _, err := ask(t.Context(), l.addr(t, "web")); return err })
	l.awaitAnswer(t, "explain web", 0, "host-1/web-3 at")
	l.post(t, "/v1/services/web/drain", `{"endpoint": "host-1/web-3"}`)
	stop := traffic(t, l)
	defer stop()
	for range 7 {
		mustConnect(t, l.addr(t, "postgres"))
		dialUDP(t, l.addr(t, "dns")).awaitAnswer(t, "dns-1", "dns-2")
	}
	x := startTerminal(t, 144, 16, l, lictorPath(t)+" top")
	x.shows("5 services")
	x.press("n", "End", "Enter", "a")
	if *screenshots {
		x.shows("up 15s") // by then the rates are steady, and nothing counts as new
	}
	screen := x.shows("out host-1/web-4", "critical, check", "out host-1/web-5", "ejected", "drained for",
		"[a active]", "! redis", "* web", " us ")
	for line := range strings.Lines(screen) {
		text := strings.TrimLeft(sgr.ReplaceAllString(line, " "), " !*") + " ."
		red, name := strings.Contains(line, "\x1b[31m"), strings.Fields(text)[0]
		if name == "redis" && !red || name == "postgres" && red {
			t.Errorf("in red %v: %q", red, line)
		}
	}
	if *screenshots {
		p := openBrowser(t)
		p.run(chromedp.EmulateViewport(1164, 332, chromedp.EmulateScale(1.5)),
			chromedp.Navigate("data:text/html;charset=utf-8;base64,"+
				base64.StdEncoding.EncodeToString([]byte(screenHTML(screen)))))
		p.keepScreenshot("top")
	}
}
