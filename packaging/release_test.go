//go:build linux

package packaging

import (
	"archive/tar"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// The tests share one release in the folder scratch.
var (
	scratch  string
	building sync.Once
	built    bool
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "lictor-packaging"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	return m.Run()
}

// A release for this system has what its users need, and a module that is in the binary is in the notices and in the
// SBOM.
func TestRelease(t *testing.T) {
	dist := releaseFolder(t)
	run(t, dist, nil, "sha256sum", "--check", "--strict", "SHA256SUMS")

	name := "lictor_0.1.0_linux_" + runtime.GOARCH
	binary := unpack(t, filepath.Join(dist, name+".tar.gz"), name)
	if version := run(t, "", nil, binary, "version"); !strings.HasPrefix(version, "lictor v0.1.0 ") {
		t.Errorf("got the version %q", version)
	}
	checkModules(t, binary, read(t, filepath.Join(dist, "THIRD-PARTY-NOTICES")),
		read(t, filepath.Join(dist, name+".cdx.json")))
	t.Run("image", func(t *testing.T) { checkImage(t, imagePath(t)) })
	t.Run("deb", func(t *testing.T) {
		checkPackage(t, "dpkg-deb", "--contents", filepath.Join(dist, "lictor_0.1.0_"+runtime.GOARCH+".deb"))
	})
	rpms, err := filepath.Glob(filepath.Join(dist, "lictor-0.1.0-1.*.rpm"))
	if err != nil || len(rpms) != 1 {
		t.Fatalf("got the RPMs %v, %v", rpms, err)
	}
	t.Run("rpm", func(t *testing.T) {
		checkPackage(t, "rpm", "--query", "--list", "--verbose", "--nosignature", "--package", rpms[0])
	})
}

// releaseFolder returns the folder with a release for this system. The first caller builds it.
func releaseFolder(t *testing.T) string {
	t.Helper()
	building.Do(func() {
		// go test reuses a result while the files that the test has looked at stay the same, so look at the scripts.
		if err := filepath.WalkDir(".", func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
		tools := filepath.Join(scratch, "tools")
		run(t, "tools", []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"}, "go", "build", "-trimpath",
			"-o", tools+"/", "tool", "./...")
		run(t, "", []string{"TOOLS=" + tools, "TARGETS=linux/" + runtime.GOARCH}, "./release", "v0.1.0",
			filepath.Join(scratch, "dist"))
		built = true
	})
	if !built {
		t.Fatal("the release cannot be built, see the test before")
	}
	return filepath.Join(scratch, "dist")
}

// imagePath returns the path of the container image of that release.
func imagePath(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(imageVar); path != "" {
		return path
	}
	return filepath.Join(releaseFolder(t), "lictor_0.1.0_oci.tar")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// unpack returns the path of the binary from the archive. All files of the archive must be in the folder.
func unpack(t *testing.T, path, folder string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	compressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, name := range []string{"lictor", "lictor.8", "lictor.hcl.5", "lictor.service", "LICENSE",
		"THIRD-PARTY-NOTICES", "README.md", "CHANGELOG.md", "example.hcl"} {
		missing[folder+"/"+name] = true
	}
	binary := filepath.Join(t.TempDir(), "lictor")
	for archive := tar.NewReader(compressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !missing[header.Name] {
			t.Errorf("the archive has %s", header.Name)
		}
		delete(missing, header.Name)
		if header.Name == folder+"/lictor" {
			content, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(binary, content, os.FileMode(header.Mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range missing {
		t.Errorf("the archive lacks %s", name)
	}
	return binary
}

// checkModules compares the notices and the SBOM with the modules that the linker has recorded.
func checkModules(t *testing.T, binary, notices, sbom string) {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 20 {
		t.Fatalf("the binary has only %d modules", len(info.Deps))
	}
	line := strings.Repeat("=", 80) + "\n"
	for _, module := range info.Deps {
		_, text, found := strings.Cut(notices, line+module.Path+" "+module.Version+"\n")
		text, _, _ = strings.Cut(text, line)
		if !found || len(text) < 500 {
			t.Errorf("the notices lack the license of %s %s", module.Path, module.Version)
		}
		if strings.Contains(text, "Mozilla Public License") && !strings.Contains(text, "\nhttps://") {
			t.Errorf("the notices do not say where the source of %s is", module.Path)
		}
		if !strings.Contains(sbom, "pkg:golang/"+module.Path+"@"+module.Version) {
			t.Errorf("the SBOM lacks %s %s", module.Path, module.Version)
		}
	}
	if !strings.Contains(notices, line+"go.dev/std "+info.GoVersion+"\n") {
		t.Error("the notices lack the license of Go's library")
	}
}

// checkPackage compares what a tool lists with the files that a package must have.
func checkPackage(t *testing.T, tool string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		testproc.Cannot(t, "the package cannot be read", err)
	}
	list := run(t, "", nil, tool, args...)
	for _, file := range []string{"/usr/bin/lictor", "/etc/lictor/lictor.hcl", "/etc/logrotate.d/lictor",
		"/usr/lib/systemd/system/lictor.service",
		"/usr/share/man/man8/lictor.8.gz", "/usr/share/man/man5/lictor.hcl.5.gz",
		"/usr/share/lictor/alerts.yml", "/usr/share/lictor/grafana.json", "/usr/share/doc/lictor/THIRD-PARTY-NOTICES",
		"/usr/share/doc/lictor/kernel-path.conf",
		"/usr/share/doc/lictor/examples/example.hcl", "/usr/share/doc/lictor/examples/README.md",
		"/usr/share/doc/lictor/examples/ansible/roles/lictor/tasks/main.yml",
		"/usr/share/bash-completion/completions/lictor"} {
		if !strings.Contains(list+"\n", file+"\n") {
			t.Errorf("%s finds no %s", tool, file)
		}
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, "/etc/lictor/lictor.hcl") && !strings.HasPrefix(line, "-rw-r----- ") {
			t.Errorf("%s: other users may read the configuration: %s", tool, line)
		}
	}
}
