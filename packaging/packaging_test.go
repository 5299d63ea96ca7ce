//go:build linux

// Package packaging has the tests of what a release has.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// run returns what a command prints. The environment is this one's and env.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, out, said.String())
	}
	return strings.TrimSpace(string(out))
}

// A later commit has a higher version, also after a tag, before the next tag, and for dpkg.
func TestVersionsSortByAge(t *testing.T) {
	repository := t.TempDir()
	git := func(time string, args ...string) {
		t.Helper()
		run(t, repository, []string{"GIT_COMMITTER_DATE=" + time, "GIT_CONFIG_GLOBAL=/dev/null"}, "git",
			append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
	}
	if err := os.Mkdir(filepath.Join(repository, "packaging"), 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("version")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(repository, "packaging", "version")
	if err := os.WriteFile(path, script, 0o755); err != nil {
		t.Fatal(err)
	}
	git("", "init", "-q")
	git("", "add", ".")
	var versions []string
	for i, tag := range []string{"", "", "v0.1.0-rc.1", "", "v0.1.0", "", "v0.1.1", "", "v0.2.0"} {
		git("2026-01-02T03:0"+string(rune('0'+i))+":00Z", "commit", "-q", "--allow-empty", "-m", "change")
		if tag != "" {
			git("", "tag", tag)
		}
		version := run(t, repository, nil, path)
		if tag != "" && version != tag {
			t.Errorf("got the version %q at the tag %s", version, tag)
		}
		versions = append(versions, run(t, repository, nil, path, "--package", version))
	}
	if !strings.HasPrefix(versions[1], "0.0.0~20260102030100.") {
		t.Errorf("got the version %q before the first tag", versions[1])
	}
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		testproc.Cannot(t, "there is no dpkg", err)
	}
	versions = append([]string{"0~4f387ea"}, versions...) // an earlier build had such a version
	for i := range versions[1:] {
		if err := exec.Command(dpkg, "--compare-versions", versions[i], "lt", versions[i+1]).Run(); err != nil {
			t.Errorf("dpkg says that %s is not older than %s", versions[i], versions[i+1])
		}
	}
}

func TestVersionMustBeOne(t *testing.T) {
	for _, version := range []string{"", "4f387ea", "v1", "v0.1", "v0.1.0; id", "v0.1.0-"} {
		if out, err := exec.Command("./version", "--package", version).CombinedOutput(); err == nil {
			t.Errorf("%q is accepted: %s", version, out)
		}
	}
}
