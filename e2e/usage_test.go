//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each folder of testdata/bad has a bad configuration and the output of validate for it.
func TestBadConfigurations(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	dirs, err := filepath.Glob("testdata/bad/*/lictor.hcl")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no testdata/bad", err)
	}
	for _, config := range dirs {
		dir := filepath.Dir(config)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			code, output := lictorCommand(t, dir, "validate", "lictor.hcl")
			if code != 1 {
				t.Errorf("validate: exit code %d, want 1", code)
			}
			golden(t, filepath.Join(dir, "message.golden"), output)

			code, ran := lictorCommand(t, dir, "run", "-config", "lictor.hcl")
			if code != 1 {
				t.Errorf("run: exit code %d, want 1", code)
			}
			if ran != output {
				t.Errorf("run says other things than validate:\n%s", ran)
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"no configuration", []string{"run"}},
		{"unknown flag", []string{"run", "-confg", "lictor.hcl"}},
		{"unknown command", []string{"rum"}},
		{"unknown log level", []string{"run", "-config", "testdata/good.hcl", "-log-level", "loud"}},
		{"argument too many", []string{"run", "-config", "testdata/good.hcl", "more"}},
		{"nothing to validate", []string{"validate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, output := lictorCommand(t, ".", tt.args...)
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if !strings.Contains(output, "lictor") {
				t.Errorf("it does not say how to use it:\n%s", output)
			}
		})
	}
}

func TestGoodConfigurationIsValid(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if code, output := lictorCommand(t, ".", "validate", "testdata/good.hcl"); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, output)
	}
}

func TestListenerInUseIsAnErrorThatNamesIt(t *testing.T) {
	t.Parallel()
	taken := startEcho(t, "a").addr.String()
	dir := t.TempDir()
	config := "service \"web\" {\n  listen = \"" + taken + "\"\n  static { endpoints = [\"127.0.0.1:1\"] }\n}\n"
	must(t, os.WriteFile(filepath.Join(dir, "lictor.hcl"), []byte(config), 0o600))
	code, output := lictorCommand(t, dir, "run", "-config", "lictor.hcl")
	if code != 1 || !strings.Contains(output, taken) || !strings.Contains(output, "in use") {
		t.Errorf("exit code %d, want 1 and a message that names %s:\n%s", code, taken, output)
	}
}

// lictorCommand runs Lictor in a folder, and returns its exit code and its output.
func lictorCommand(t *testing.T, dir string, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), lictorPath(t), args...)
	cmd.Dir = dir
	cmd.Env = append(environment(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal([]byte(got), want) {
		t.Errorf("got:\n%s\nwant, as in %s:\n%s", got, file, want)
	}
}

func TestFilterThatConsulRefusesNamesTheLine(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	dir := t.TempDir()
	config := consulBlock(c) + service("web", "consul {", "  filter = \"Service.Metta.version == `2`\"", "}")
	must(t, os.WriteFile(filepath.Join(dir, "lictor.hcl"), []byte(config), 0o600))
	for _, args := range [][]string{{"validate", "lictor.hcl"}, {"run", "-config", "lictor.hcl"}} {
		code, output := lictorCommand(t, dir, args...)
		if code != 1 || !strings.Contains(output, "lictor.hcl:7:") || !strings.Contains(output, "Metta") {
			t.Errorf("lictor %s: exit code %d, want 1 and a message that shows line 7:\n%s", args[0], code, output)
		}
	}
}
