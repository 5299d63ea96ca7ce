package testconsul

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// ErrNotFound is returned by Find if this machine has no Consul yet.
var ErrNotFound = errors.New("no consul: not in $CONSUL, not in PATH, and not built before (`make consul` builds it, " +
	"once)")

const modulePath = "github.com/hashicorp/consul"

// VersionVar is the environment variable that asks for another version of Consul than the default, such as v1.21.5.
const VersionVar = "CONSUL_VERSION"

// Find returns the path of the Consul program for tests: $CONSUL, or the one in PATH, or the one that Build made. If
// $CONSUL_VERSION asks for a version, Find does not look in PATH.
func Find() (string, error) {
	if path := os.Getenv("CONSUL"); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("$CONSUL: %w", err)
		}
		return filepath.Abs(found)
	}
	if path, err := exec.LookPath("consul"); err == nil && os.Getenv(VersionVar) == "" {
		return filepath.Abs(path)
	}
	path, _, err := kept()
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath(path); err != nil {
		return "", ErrNotFound
	}
	return path, nil
}

// Need returns the path of the Consul program for tests. Without one, it skips the test, or fails it in CI.
func Need(t testing.TB) string {
	t.Helper()
	path, err := Find()
	if err == nil {
		return path
	}
	testproc.Cannot(t, "there is no Consul", err)
	panic("unreachable")
}

// Build returns the result of Find, or builds Consul if there is none. It builds the version that $CONSUL_VERSION asks
// for, or the module that e2e/consul/go.mod pins. That takes minutes. The program stays in the user's cache folder,
// where `make clean` keeps it and all clones find it. Build writes a line to progress every few seconds.
func Build(ctx context.Context, progress io.Writer) (string, error) {
	path, err := Find()
	if !errors.Is(err, ErrNotFound) {
		return path, err
	}
	path, module, err := kept()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := exec.LookPath(path); err == nil {
		return path, nil // another process built it meanwhile
	}
	return path, build(ctx, progress, module, path)
}

// kept returns the path where Build keeps its program, and the folder of the module that it builds.
func kept() (path, module string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	version := strings.TrimPrefix(os.Getenv(VersionVar), "v")
	if version == "" {
		module, version, err = pinned()
	} else if !release.MatchString(version) {
		err = fmt.Errorf("$%s is not a version, such as v1.21.5: %q", VersionVar, version)
	} else {
		module = filepath.Join(cache, "lictor", "module-consul-"+version)
	}
	if err != nil {
		return "", "", err
	}
	name := fmt.Sprintf("consul-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH)
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(cache, "lictor", name), module, nil
}

var release = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// parts are versions of modules that Consul's own repository also contains. A release of Consul is built there with the
// files beside it, and may require versions that the module proxy does not have. Such a release is built with parts.
var parts = map[string][]string{
	"v1.21.5": {"envoyextensions@v0.9.6", "proto-public@v0.6.5", "sdk@v0.16.3", "troubleshoot@v0.8.7"},
	"v1.18.2": {"envoyextensions@v0.5.2", "proto-public@v0.6.1", "troubleshoot@v0.7.1"},
}

// require makes a module that requires the version of Consul that $CONSUL_VERSION asks for.
func require(ctx context.Context, meter *meter, module string) error {
	if err := os.MkdirAll(module, 0o755); err != nil {
		return err
	}
	version := "v" + strings.TrimPrefix(os.Getenv(VersionVar), "v")
	text := "module consul\n\ngo 1.24\n\n"
	for _, part := range parts[version] {
		name, at, _ := strings.Cut(part, "@")
		text += fmt.Sprintf("replace %[1]s/%[2]s => %[1]s/%[2]s %[3]s\n", modulePath, name, at)
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte(text), 0o644); err != nil {
		return err
	}
	return goTool(ctx, module, io.Discard, meter, "get", "-tool", modulePath+"@"+version)
}

var versionLine = regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(modulePath) + ` v(\S+)`)

// pinned finds e2e/consul/go.mod from the working directory upwards, because tests run in the folders of their
// packages. pinned returns the module's folder and the pinned version of Consul, which only that file names.
func pinned() (module, version string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for {
		module = filepath.Join(dir, "e2e", "consul")
		text, err := os.ReadFile(filepath.Join(module, "go.mod"))
		if err == nil {
			m := versionLine.FindSubmatch(text)
			if m == nil {
				return "", "", fmt.Errorf("%s/go.mod: no version of %s", module, modulePath)
			}
			return module, string(m[1]), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", "", errors.New("e2e/consul/go.mod: not found from the working directory upwards")
		}
		dir = parent
	}
}

func build(ctx context.Context, progress io.Writer, module, path string) error {
	_, _ = fmt.Fprintf(progress, "building %s, once; on two cores this takes about 5 minutes\n", filepath.Base(path))
	meter := &meter{to: progress, started: time.Now()}
	defer meter.every(3 * time.Second)()

	if os.Getenv(VersionVar) != "" {
		if err := require(ctx, meter, module); err != nil {
			return err
		}
	}
	var packages strings.Builder
	if err := goTool(ctx, module, &packages, meter, "list", "-deps", modulePath); err != nil {
		return err
	}
	meter.expect(strings.Count(packages.String(), "\n"))

	// The rename comes last, so that an interrupted build leaves no broken program.
	temporary := path + ".new"
	defer func() { _ = os.Remove(temporary) }()
	if err := goTool(ctx, module, io.Discard, meter, "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", temporary,
		modulePath); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func goTool(ctx context.Context, dir string, stdout io.Writer, meter *meter, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// Build for this machine even during a cross build. No C compiler is needed.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOWORK=off")
	cmd.Stdout = stdout
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	rest := meter.read(pipe)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, rest)
	}
	return nil
}

// A meter counts the progress lines of `go list` and `go build -v`.
type meter struct {
	to      io.Writer
	started time.Time

	mu         sync.Mutex
	downloaded int
	compiled   int
	packages   int // packages to compile; 0 until known
}

var packageLine = regexp.MustCompile(`^[a-z][\w.\-/]*$`)

// read counts lines until r ends, and returns the other lines, which describe errors.
func (m *meter) read(r io.Reader) string {
	var rest strings.Builder
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		m.mu.Lock()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			m.downloaded++
		case packageLine.MatchString(line):
			m.compiled++
		default:
			rest.WriteString(line + "\n")
		}
		m.mu.Unlock()
	}
	return rest.String()
}

func (m *meter) expect(packages int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.packages = packages
}

func (m *meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	elapsed := time.Since(m.started).Round(time.Second)
	if m.packages == 0 {
		return fmt.Sprintf("  %4s  %d modules downloaded", elapsed, m.downloaded)
	}
	if m.compiled == 0 {
		return fmt.Sprintf("  %4s  %d packages to go through", elapsed, m.packages)
	}
	return fmt.Sprintf("  %4s  %d packages compiled, of at most %d", elapsed, m.compiled, m.packages)
}

// every prints the meter at each interval. The caller must call stop to end that.
func (m *meter) every(interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var printer sync.WaitGroup
	printer.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_, _ = fmt.Fprintln(m.to, m)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); printer.Wait(); _, _ = fmt.Fprintln(m.to, m) }
}
