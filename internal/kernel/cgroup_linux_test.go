//go:build amd64 || arm64

package kernel

import (
	"path/filepath"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A control group has the path in the hierarchy, and that of its directory.
func TestControlGroupHasTwoPaths(t *testing.T) {
	root, err := findCgroup("")
	if err != nil {
		testproc.Cannot(t, "the root of the cgroup2 hierarchy is not there", err)
	}
	group := ownGroup(t)
	if group == "" {
		return // this process is in the root
	}
	for _, path := range []string{group, group + "/", filepath.Join(root, group)} {
		if dir, err := findCgroup(path); err != nil || dir != filepath.Join(root, group) {
			t.Errorf("%s: got %q, %v", path, dir, err)
		}
	}
	if dir, err := findCgroup(root); err != nil || dir != root {
		t.Errorf("%s: got %q, %v", root, dir, err)
	}
	if dir, err := findCgroup(root + "-other"); err == nil {
		t.Errorf("got %q for a group that does not exist", dir)
	}
}
