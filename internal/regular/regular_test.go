package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	for _, path := range []string{file, link} {
		if text, err := ReadFile(path, 5); err != nil || string(text) != "12345" {
			t.Errorf("got %q, %v, want all of a file that is as long as it may be", text, err)
		}
	}
	var path *fs.PathError
	if text, err := ReadFile(file, 4); !errors.Is(err, ErrTooLong) || !errors.As(err, &path) || text != nil {
		t.Errorf("got %q, %v, want that the file is too long", text, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is no such file", err)
	}
	if _, err := ReadFile(dir, 4); err == nil || !strings.Contains(err.Error(), "a directory, not a regular file") {
		t.Errorf("got %v, want that it is a directory", err)
	}
}

// A file that the kernel generates has size zero, but is not empty.
func TestReadFileDoesNotTrustTheSize(t *testing.T) {
	const path = "/proc/self/status"
	info, err := os.Stat(path)
	if err != nil || info.Size() != 0 {
		t.Skip("this system has no such file")
	}
	if text, err := ReadFile(path, 1<<20); err != nil || len(text) == 0 {
		t.Errorf("got %d bytes, %v", len(text), err)
	}
	if _, err := ReadFile(path, 10); !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v, want that the file is too long", err)
	}
}
