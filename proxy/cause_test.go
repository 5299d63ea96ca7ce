package proxy

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/lb"
)

// The loops get bare errors and the portable engine gets errors of package net. Both kinds of error mean the same. A
// refusal also counts against the endpoint.
func TestIsRefusal(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		want  bool
		cause lb.Cause
	}{
		{syscall.ECONNREFUSED, true, lb.Refused},
		{syscall.EHOSTUNREACH, true, lb.Unreachable},
		{syscall.ENETUNREACH, true, lb.Unreachable},
		{syscall.EAGAIN, false, 0},
		{syscall.ENOBUFS, false, 0},
		{syscall.EPERM, false, 0},
	} {
		if got := isRefusalErrno(tt.errno); got != tt.want {
			t.Errorf("isRefusalErrno(%v) = %v, want %v", tt.errno, got, tt.want)
		}
		for _, err := range []error{tt.errno, &net.OpError{Op: "write", Err: os.NewSyscallError("sendmsg", tt.errno)}} {
			if got := isRefusal(err); got != tt.want {
				t.Errorf("isRefusal(%v) = %v, want %v", err, got, tt.want)
			}
			if cause, local := causeOf(err); cause != tt.cause || local == tt.want {
				t.Errorf("causeOf(%v) = %v, %v, want %v, %v", err, cause, local, tt.cause, !tt.want)
			}
		}
	}
	if isRefusalErrno(0) {
		t.Error("isRefusalErrno(0) = true, want false")
	}
	if isRefusal(nil) || isRefusal(syscall.Errno(0)) || isRefusal(errors.New("other")) {
		t.Error("isRefusal is true for an error that is not a refusal")
	}
}
