package admin

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// Of two processes that serve one socket, the one that leaves does not take its file away.
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
