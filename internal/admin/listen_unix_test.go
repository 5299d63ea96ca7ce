//go:build unix

package admin

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// If two processes serve one socket, the process that releases the socket keeps the socket's file.
func TestWhoReleasesASocketKeepsItsFile(t *testing.T) {
	a := Address{Socket: filepath.Join(t.TempDir(), "s")}
	l, err := Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*socket).File()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Inherit(a, f)
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err := Inherit(Address{TCP: netip.MustParseAddrPort("127.0.0.1:1")}, f); err == nil {
		wrong.Close()
		t.Error("a Unix socket is taken for another one")
	}
	f.Close()
	New(Options{}).Release(l)
	if _, err := os.Stat(a.Socket); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
	second.Close()
	if _, err := os.Stat(a.Socket); err == nil {
		t.Error("the last one leaves its file behind")
	}
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
		if l, err := Listen(Address{Socket: at(tt.name)}); err == nil {
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
	l, err := Listen(Address{Socket: at("abandoned")})
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

// Closing an inherited listener does not remove a file that has replaced its socket.
func TestCloseRemovesOnlyItsSocket(t *testing.T) {
	a := Address{Socket: filepath.Join(t.TempDir(), "s")}
	l, err := Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*socket).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := os.WriteFile(a.Socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	heir, err := Inherit(a, f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	_ = heir.Close()
	if text, err := os.ReadFile(a.Socket); err != nil || string(text) != "precious" {
		t.Errorf("got %q, %v", text, err)
	}
}
