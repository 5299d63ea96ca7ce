package statefile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/statefile"
)

func TestDecodeNoticesWhatIsNotTheFile(t *testing.T) {
	good := statefile.Encode("lictor-x", 2, []byte("body\n"))
	if body, err := statefile.Decode("lictor-x", 2, good); err != nil || string(body) != "body\n" {
		t.Fatalf("got %q, %v", body, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := statefile.Decode("lictor-x", 2, bad); err == nil {
			t.Errorf("a changed byte %d (%q) was not noticed", i, good[i])
		}
	}
	if _, err := statefile.Decode("lictor-y", 2, good); !errors.Is(err, statefile.ErrForeign) {
		t.Errorf("another mark: %v", err)
	}
	if _, err := statefile.Decode("lictor-x", 1, good); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another version: %v", err)
	}
	if _, err := statefile.Decode("lictor-x", 2, good[:len(good)-1]); !errors.Is(err, statefile.ErrDamaged) {
		t.Errorf("cut: %v", err)
	}
	if _, err := statefile.Decode("lictor-x", 2, nil); !errors.Is(err, statefile.ErrForeign) {
		t.Errorf("empty: %v", err)
	}
}

func TestReplaceSurvivesAFormerAttempt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for _, content := range []string{"one", "two"} {
		if err := statefile.Replace(dir, "file", []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
		if err := os.WriteFile(filepath.Join(dir, "file.new"), []byte("left by a crash"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
}
