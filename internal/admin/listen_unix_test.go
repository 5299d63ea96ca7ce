//go:build unix

package admin

import (
	"net/netip"
	"os"
	"path/filepath"
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
