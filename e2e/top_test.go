//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needTool finds a program that a test needs, or skips the test; in CI it has to be there.
func needTool(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	message := fmt.Sprintf("NOT TESTED: there is no %s; \"make browser\" installs it", strings.Join(names, ", no "))
	if os.Getenv("CI") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

// In a real terminal top draws, obeys keys, and leaves the terminal as it was.
func TestTopInATerminal(t *testing.T) {
	tmux := needTool(t, "tmux")
	l := runLictor(t, service("web", `static { endpoints = ["127.0.0.1:1"] }`)+service("zoo", `static { endpoints = ["127.0.0.1:2"] }`))
	socket := filepath.Join(shortTempDir(t), "tmux")
	run := func(args ...string) (string, error) {
		cmd := exec.Command(tmux, append([]string{"-S", socket, "-f", "/dev/null"}, args...)...)
		cmd.Env = append(environment(), "TERM=screen")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("new-session", "-d", "-x", "130", "-y", "12", "env", "RUNTIME_DIRECTORY="+l.runtime, "sh", "-c", lictorPath(t)+" top; echo ended with $?; exec cat")
	if err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = run("kill-server") })
	shows := func(want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("a screen with %q", want), func() error {
			screen, err := run("capture-pane", "-p")
			for _, w := range want {
				if !strings.Contains(screen, w) {
					return fmt.Errorf("%v, got:\n%s", err, screen)
				}
			}
			return nil
		})
	}
	press := func(key string) {
		t.Helper()
		_, err := run("send-keys", key)
		must(t, err)
	}
	shows("2 services, 2 in, 0 out", "[a active]", "web", "zoo")
	press("n")
	shows("[n name]")
	press("Down")
	press("Enter")
	shows("in  127.0.0.1:1")
	press("q")
	shows("ended with 0")
}
