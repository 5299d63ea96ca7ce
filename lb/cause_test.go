package lb

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestCauseOf(t *testing.T) {
	for _, tt := range []struct {
		err   error
		cause Cause
		ours  bool
	}{
		{syscall.ECONNREFUSED, Refused, false},
		{syscall.ECONNRESET, Reset, false},
		{syscall.EPIPE, Reset, false},
		{syscall.ETIMEDOUT, Unreachable, false},
		{syscall.EHOSTUNREACH, Unreachable, false},
		{os.ErrDeadlineExceeded, Unreachable, false},
		{context.DeadlineExceeded, Unreachable, false},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, Unreachable, false},
		{errUnfit, Unfit, false},
		{syscall.EMFILE, 0, true},
		{syscall.ENFILE, 0, true},
		{syscall.ENOBUFS, 0, true},
		{syscall.ENOMEM, 0, true},
		{syscall.EADDRNOTAVAIL, 0, true},
		{syscall.EADDRINUSE, 0, true},
		{syscall.EAGAIN, 0, true},
		{syscall.EACCES, 0, true},
		{syscall.EPERM, 0, true},
		{context.Canceled, 0, true},
		{ErrLookups, 0, true},
	} {
		wrapped := fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", tt.err)})
		for _, err := range []error{tt.err, wrapped} {
			if cause, ours := CauseOf(err); cause != tt.cause || ours != tt.ours {
				t.Errorf("%v: got %v, %v, want %v, %v", err, cause, ours, tt.cause, tt.ours)
			}
		}
	}
}
