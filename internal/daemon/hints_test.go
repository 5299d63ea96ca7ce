package daemon

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The hint depends on what could not be opened, not only on the error number.
func TestHintsAreForTheirCause(t *testing.T) {
	port := func(err error) error {
		return &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", err)}
	}
	socket := func(err error) error {
		return &net.OpError{Op: "listen", Net: "unix", Err: os.NewSyscallError("bind", err)}
	}
	for _, tt := range []struct {
		err  error
		want string // empty for no hint
	}{
		{port(syscall.EADDRINUSE), "choose another port"},
		{port(syscall.EACCES), "ports below 1024"},
		{socket(syscall.EADDRINUSE), "choose another path"},
		{socket(syscall.EACCES), ""},
		{&os.PathError{Op: "mkdir", Path: "/run/x", Err: syscall.EACCES}, ""},
	} {
		if got := hint(tt.err); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
}
