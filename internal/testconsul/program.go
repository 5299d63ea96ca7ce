package testconsul

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Program returns the path of the program in the folder e2e/consul/NAME, and builds it first. These programs are peers
// of Lictor that need packages of Consul, so they are in the module of Consul. They are built as Build builds Consul,
// which has compiled most of what they need. If a program cannot be built, Program skips the test, or fails it in CI.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := buildProgram(t.Context(), name)
	if err != nil {
		testproc.Cannot(t, "there is no e2e/consul/"+name, err)
	}
	return path
}

func buildProgram(ctx context.Context, name string) (string, error) {
	module, _, err := pinned()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "lictor", "test-"+name)
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	silent := &meter{started: time.Now()}
	return path, goTool(ctx, module, os.Stderr, silent, "build", "-trimpath", "-o", path, "./"+name)
}
