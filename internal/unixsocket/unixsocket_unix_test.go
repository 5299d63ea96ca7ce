//go:build unix

package unixsocket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// listen opens a socket, and returns an error or what removes it.
func listen(path string) (*socket, error) {
	l, file, err := Listen(path, Access{Mode: 0o600})
	if err != nil {
		return nil, err
	}
	return &socket{l, file}, nil
}

// A socket gets its mode and its owner before anybody can connect, and others later. Only numbers and names that exist
// are owners.
func TestAccess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	own := Access{Mode: 0o640, Owner: strconv.Itoa(os.Getuid()), Group: strconv.Itoa(os.Getgid())}
	l, file, err := Listen(path, own)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	mode := func() fs.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if got := mode(); got != 0o640 {
		t.Errorf("got mode %v, want 0640", got)
	}
	if err := file.Restrict(Access{Mode: 0o606}); err != nil || mode() != 0o606 {
		t.Errorf("got mode %v, %v, want 0606", mode(), err)
	}
	for _, a := range []Access{{Owner: "no such user"}, {Group: "no such group"}} {
		if err := file.Restrict(a); err == nil || mode() != 0o606 {
			t.Errorf("%+v: got mode %v and no error", a, mode())
		}
		if _, _, err := Listen(path+"2", a); err == nil || identity(path+"2") != nil {
			t.Errorf("%+v: it listens", a)
		}
	}
	if err := Check(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Check: got %v, want that it is in use", err)
	}
	if err := Check(filepath.Join(path, "s")); err == nil {
		t.Error("Check: a socket is a folder")
	}
	file.Remove()
	file.Remove()
	if err := Check(path); err != nil {
		t.Errorf("Check: got %v of a free path", err)
	}
}

type socket struct {
	*net.UnixListener
	file *File
}

func (s *socket) Close() error {
	s.file.Remove()
	return s.UnixListener.Close()
}

// Listen keeps everything at the path that is not an abandoned socket, with its content.
func TestListenReplacesOnlyAbandonedSockets(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	served, err := net.Listen("unix", at("served"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = served.Close() }()
	datagrams, err := net.ListenPacket("unixgram", at("datagrams"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = datagrams.Close() }()
	abandoned, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("abandoned"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	abandoned.SetUnlinkOnClose(false)
	_ = abandoned.Close()
	for link, target := range map[string]string{"dangling": "nothing", "link": "file", "tosocket": "abandoned"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, want string }{
		{"file", "is a regular file, not a socket"},
		{"folder", "is a directory, not a socket"},
		{"dangling", "is a symbolic link, not a socket"},
		{"link", "is a symbolic link, not a socket"},
		{"tosocket", "is a symbolic link, not a socket"},
		{"served", "address already in use"},
		{"datagrams", "cannot find out whether the socket there is in use"},
	}
	for _, tt := range tests {
		before, err := os.Lstat(at(tt.name))
		if err != nil {
			t.Fatal(err)
		}
		if l, err := listen(at(tt.name)); err == nil {
			t.Errorf("%s: it listens there", tt.name)
			_ = l.Close()
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if after, err := os.Lstat(at(tt.name)); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: it was replaced (%v)", tt.name, err)
		}
	}
	if text, err := os.ReadFile(at("file")); err != nil || string(text) != "precious" {
		t.Errorf("the file: got %q, %v", text, err)
	}
	l, err := listen(at("abandoned"))
	if err != nil {
		t.Fatalf("an abandoned socket: %v", err)
	}
	_ = l.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(tests) {
		t.Errorf("got %v, %v, want what was there before", entries, err)
	}
}

// If another process takes the path meanwhile, its socket stays.
func TestPublishReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, path := range []string{first, second} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
	}
	before := identity(first)
	if err := publish(second, first); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want that it is in use", err)
	}
	if !os.SameFile(before, identity(first)) {
		t.Error("the socket was replaced")
	}
}
