//go:build unix

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testseccomp"
)

// TestMain sets these variables once.
var (
	lictorBinary string
	consulBinary string
	errNoConsul  error // why consulBinary is empty
)

// lictorVar is the environment variable with the path of the lictor to test, for a process that a test starts to do its
// work.
const lictorVar = "E2E_LICTOR"

func TestMain(m *testing.M) {
	testseccomp.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	consulBinary, errNoConsul = testconsul.Find()
	if lictorBinary = os.Getenv(lictorVar); lictorBinary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "lictor-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	lictorBinary = filepath.Join(dir, "lictor")
	args := []string{"build", "-o", lictorBinary}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/lictor")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: build lictor: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// lictorPath returns the path of the lictor to test.
func lictorPath(t testing.TB) string {
	t.Helper()
	must(t, dependOnSources())
	return lictorBinary
}

// dependOnSources opens all folders of the module, once. `go test` reuses a result while neither the test nor the files
// that it opened change, and does not know that these tests depend on the lictor that they build.
var dependOnSources = sync.OnceValue(func() error {
	return filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
})
