//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// stateful returns a configuration with a state_dir.
func stateful(c *consul, dir string) string {
	return fmt.Sprintf("state_dir = %q\n", dir) + consulBlock(c) + service("web")
}

const savedFile = "endpoints.saved"

// awaitSaved waits until the saved state contains all the texts.
func awaitSaved(t *testing.T, dir string, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v are saved", texts), func() error {
		b, err := os.ReadFile(filepath.Join(dir, savedFile))
		for _, text := range texts {
			if err == nil && !strings.Contains(string(b), text) {
				err = fmt.Errorf("no %s in %s", text, b)
			}
		}
		return err
	})
}

func TestLictorRestartedWhileConsulIsDown(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	dir := filepath.Join(t.TempDir(), "state")
	a, b := startEcho(t, "a"), startEcho(t, "b")
	c.register(t, "web", "a", a.addr)
	c.register(t, "web", "b", b.addr)
	l := runLictor(t, stateful(c, dir))
	awaitSaved(t, dir, a.addr.String(), b.addr.String())
	info, err := os.Stat(filepath.Join(dir, savedFile))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	c.Kill()
	l.Stop(syscall.SIGKILL, patience)

	l = startLictor(t, stateful(c, dir))
	web := l.addr(t, "web")
	clients := startWorkers(t, web, 20) // from the start
	clients.awaitRounds(t, 50)
	if strings.Contains(l.stderr.String(), `"ready"`) {
		t.Error("ready without Consul's word")
	}
	must(t, c.Restart(t.Context()))
	c.register(t, "web", "a", a.addr)
	c.register(t, "web", "b", b.addr)
	l.awaitReady(t)
	clients.awaitRounds(t, 20)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
	c.register(t, "web", "c", startEcho(t, "c").addr)
	awaitRotation(t, web, "a", "b", "c")
}

// Lictor starts although its saved state cannot be used, and replaces that state when Consul has answered.
func TestUnusableStateIsSetAside(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a := startEcho(t, "a")
	c.register(t, "web", "a", a.addr)
	good := filepath.Join(t.TempDir(), "state")
	l := runLictor(t, stateful(c, good))
	awaitSaved(t, good, a.addr.String())
	l.Stop(syscall.SIGTERM, patience)
	saved, err := os.ReadFile(filepath.Join(good, savedFile))
	must(t, err)

	flipped := append([]byte(nil), saved...)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string][]byte{
		"truncated":   saved[:len(saved)/2],
		"bit-flipped": flipped,
		"newer":       []byte(strings.Replace(string(saved), "lictor-endpoints 1 ", "lictor-endpoints 99 ", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, savedFile), content, 0o600))
			l := runLictor(t, stateful(c, dir))
			l.awaitLog(t, 0, complaint("saved endpoints cannot be used"))
			wantCounts(t, l.addr(t, "web"), map[string]int{"a": 5})
			awaitSaved(t, dir, a.addr.String())
			aside, err := os.ReadFile(filepath.Join(dir, "endpoints.aside"))
			must(t, err)
			if string(aside) != string(content) {
				t.Errorf("set aside %q, want %q", aside, content)
			}
		})
	}
}
