package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Addresses in use are noted even without -live, and are not a failure. With -offline they are not checked.
func TestValidateNotesAddressesInUse(t *testing.T) {
	t.Parallel()
	var src strings.Builder
	for i := range maxNamed + 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		fmt.Fprintf(&src, "service \"s%d\" {\n  listen = %q\n", i, l.Addr())
		fmt.Fprint(&src, "  static { endpoints = [\"10.0.0.1:80\"] }\n}\n")
	}
	path := filepath.Join(t.TempDir(), "lictor.hcl")
	if err := os.WriteFile(path, []byte(src.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	const note = "addresses in use: tcp 127.0.0.1:"
	const nobody = "127.0.0.1:1" // no lictor is there, but there may be one at a default address
	if _, said := lictor(t, exitOK, "validate", "-admin", nobody, path); !strings.Contains(said, note) ||
		!strings.Contains(said, `(service "s2") and 2 more; that is right if a lictor runs`) {
		t.Errorf("got %s", said)
	}
	out, _ := lictor(t, exitOK, "validate", "-admin", nobody, "-json", path)
	if !strings.Contains(out, "Addresses in use") {
		t.Errorf("got %s", out)
	}
	if out, said := lictor(t, exitOK, "validate", "-offline", path); said != "" || strings.Contains(out, "in use") {
		t.Errorf("offline: got %s%s", out, said)
	}
}
