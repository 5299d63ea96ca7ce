//go:build unix

package daemon

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A Watch notices all ways to change a configuration, with reports from the system and with polling.
func TestWatchSeesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"written": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "lictor.hcl"), "b") },
		"replaced": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "new"), "b")
			if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "lictor.hcl")); err != nil {
				t.Fatal(err)
			}
		},
		"removed": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "lictor.hcl")); err != nil {
				t.Fatal(err)
			}
		},
		"new in the folder": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "folder", "2.hcl"), "b") },
		"another link": func(t *testing.T, dir string) { // as Kubernetes does
			write(t, filepath.Join(dir, "v2.hcl"), "b")
			if err := os.Symlink("v2.hcl", filepath.Join(dir, "tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "link.hcl")); err != nil {
				t.Fatal(err)
			}
		},
		"the target of the link": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "v1.hcl"), "b") },
	} {
		for mode, watch := range map[string]func(*Watch, context.Context, func()){
			"told":  func(w *Watch, ctx context.Context, f func()) { w.run(ctx, hclog.NewNullLogger(), f) },
			"polls": (*Watch).poll,
		} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
					t.Fatal(err)
				}
				for _, file := range []string{"lictor.hcl", "v1.hcl", "folder/1.hcl"} {
					write(t, filepath.Join(dir, file), "a")
				}
				if err := os.Symlink("v1.hcl", filepath.Join(dir, "link.hcl")); err != nil {
					t.Fatal(err)
				}
				w := NewWatch([]string{filepath.Join(dir, "lictor.hcl"), filepath.Join(dir, "folder"),
					filepath.Join(dir, "link.hcl")})
				first := w.last
				change(t, dir)
				seen, done := make(chan struct{}, 8), make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					defer close(done)
					watch(w, ctx, func() { seen <- struct{}{} })
				}()
				testproc.Receive(t, "the change before the watch began", seen)
				write(t, filepath.Join(dir, "folder", "3.hcl"), "c")
				testproc.Receive(t, "the next change", seen)
				cancel()
				testproc.Receive(t, "the end", done)
				if w.last == first || w.last != fingerprint(w.paths) {
					t.Error("the fingerprint is not that of the present files")
				}
				if len(seen) > 0 {
					t.Error("a change was reported without a change")
				}
			})
		}
	}
}

func TestFingerprintIsOfContents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.hcl")
	of := func() [32]byte { return fingerprint([]string{path, dir}) }
	missing := of()
	write(t, path, "a")
	a := of()
	write(t, path, "a")
	if of() != a || a == missing {
		t.Error("the fingerprint changed although the content did not")
	}
	write(t, filepath.Join(dir, "a.txt"), "no configuration")
	if of() != a {
		t.Error("the fingerprint includes a file that is not read")
	}
	write(t, path, "b")
	b := of()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 && of() == b {
		t.Error("an unreadable file has the fingerprint of a readable one")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if of() == b { // and fingerprint does not wait for a writer
		t.Error("a FIFO has the fingerprint of a file")
	}
}

func TestFoldersOf(t *testing.T) {
	dir := t.TempDir()
	elsewhere := t.TempDir()
	write(t, filepath.Join(elsewhere, "real.hcl"), "")
	if err := os.Symlink(filepath.Join(elsewhere, "real.hcl"), filepath.Join(dir, "link.hcl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(dir, "link.hcl"), filepath.Join(dir, "d"), filepath.Join(dir, "gone.hcl")}
	real, err := filepath.EvalSymlinks(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{dir, real, filepath.Join(dir, "d")}
	if got := foldersOf(paths); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFoldersThatCannotBeWatched(t *testing.T) {
	if w, err := newWatcher([]string{t.TempDir(), "/nowhere"}); err == nil {
		_ = w.Close()
		t.Error("a missing folder is watched")
	}
}

func TestDaemonReloadsWatchedFiles(t *testing.T) {
	a, b := instance(t, "a"), instance(t, "b")
	s := newServed(t, service("web", "127.0.0.1:0", a, ""))
	s.start(Options{Watch: NewWatch([]string{s.path})}, nil)
	defer s.stop()
	reaches(t, s.address("web"), "a")
	s.write(service("web", "127.0.0.1:0", b, ""))
	s.awaitLog(`reloaded: changes="1 service changed"`)
	reaches(t, s.address("web"), "b")
}
