package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write writes a file in dir and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fmt takes the same files of a directory as run, and with -recursive those of subdirectories too.
func TestFilesThatFmtTakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"b.hcl", "a.hcl", ".hidden.hcl", "notes.txt", "sub/c.hcl", "sub/deep/d.hcl",
		".git/e.hcl", "folder.hcl/f.hcl", "other.HCL"} {
		write(t, dir, name, "")
	}
	tests := []struct {
		path      string
		recursive bool
		want      string
	}{
		{"", false, "a.hcl b.hcl"},
		{"", true, "a.hcl b.hcl folder.hcl/f.hcl sub/c.hcl sub/deep/d.hcl"},
		{"sub", false, "sub/c.hcl"},
		{"sub", true, "sub/c.hcl sub/deep/d.hcl"},
		{".git", true, ""}, // a hidden folder is skipped even if it is named
		{"notes.txt", true, "notes.txt"},
		{".hidden.hcl", false, ".hidden.hcl"},
	}
	for _, tt := range tests {
		files, err := (&fmtCommand{recursive: tt.recursive}).find(filepath.Join(dir, tt.path))
		var got []string
		for _, file := range files {
			name, _ := filepath.Rel(dir, file)
			got = append(got, filepath.ToSlash(name))
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q, recursive %v: got %q, %v, want %q", tt.path, tt.recursive, got, err, tt.want)
		}
	}
	if _, err := (&fmtCommand{recursive: true}).find(filepath.Join(dir, "none")); err == nil {
		t.Error("no error for a missing path")
	}
}

// A path that cannot be formatted does not keep fmt from formatting the others, in any order.
func TestFmtGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	good := write(t, dir, "good.hcl", "log_json=true\n")
	bad := write(t, dir, "bad.hcl", "log_json\n")
	out, said := lictor(t, exitFailed, "fmt", filepath.Join(dir, "none.hcl"), empty, bad, good)
	equal(t, out, good+"\n")
	for _, want := range []string{"none.hcl: no such file", "holds no *.hcl file", "bad.hcl:1:"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
	if text, err := os.ReadFile(good); err != nil || string(text) != "log_json = true\n" {
		t.Errorf("got %q, %v", text, err)
	}
	if text, err := os.ReadFile(bad); err != nil || string(text) != "log_json\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

// A file is replaced as a whole, and no other file is left beside it.
func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, dir, "web.hcl", "old")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	link := filepath.Join(dir, "link.hcl")
	if err := os.Symlink("web.hcl", link); err != nil {
		t.Skip(err)
	}
	if err := replace(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	old := make([]byte, 9)
	if n, _ := reader.Read(old); string(old[:n]) != "old" {
		t.Errorf("a reader who has the old file open gets %q, want %q", old[:n], "old")
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("got mode %v, %v, want %v", info.Mode(), err, os.FileMode(0o644))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Type() != os.ModeSymlink {
		t.Errorf("got %v, %v, want the file and the link", entries, err)
	}
	if err := replace(filepath.Join(dir, "none"), nil); err == nil {
		t.Error("no error for a missing file")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("got %v after an error, want the file and the link", entries)
	}
}

// fmt stops reading endless input at the largest size of a file.
func TestFmtOfTooMuchInput(t *testing.T) {
	t.Parallel()
	var out, said strings.Builder
	code := Main([]string{"fmt", "-"}, console{in: endless{}, out: &out, err: &said})
	if code != exitFailed || out.String() != "" || !strings.Contains(said.String(), "<stdin> has more than 16 MiB") {
		t.Errorf("got exit code %d, %d bytes, %q", code, out.Len(), said.String())
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
