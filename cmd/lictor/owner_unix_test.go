//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestReplaceKeepsOwnerAndGroup(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		testproc.Cannot(t, "a file cannot be given to another user", syscall.EPERM)
	}
	path := write(t, t.TempDir(), "web.hcl", "old")
	const owner, group = 12345, 23456
	if err := os.Chown(path, owner, group); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := replace(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	is := info.Sys().(*syscall.Stat_t)
	if is.Uid != owner || is.Gid != group || info.Mode() != 0o640 {
		t.Errorf("got owner %d, group %d, mode %v, want %d, %d, 0640", is.Uid, is.Gid, info.Mode(), owner, group)
	}
}
