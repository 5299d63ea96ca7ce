package sys

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Every call has a name of its own, can be tried, and is not denied by the system that the tests need.
func TestTryEachCall(t *testing.T) {
	names := map[string]bool{}
	var d Denials
	var all []Call
	for c := range NumCalls {
		if name := c.String(); name == "" || names[name] {
			t.Errorf("call %d has the name %q, or another one has it too", c, name)
		}
		names[c.String()] = true
		all = append(all, c)
	}
	d.Try(all)
	for _, c := range all {
		if err := d.Err(c); d.Has(c) || err != 0 {
			t.Errorf("%v counts as denied: %v", c, err)
		}
	}
}

// A denial is noted once, with the first error, and told once.
func TestDenials(t *testing.T) {
	var told []Call
	d := Denials{OnDenial: func(c Call, err syscall.Errno) {
		told = append(told, c)
		if err != unix.ENOSYS {
			t.Errorf("got %v, want the first error, ENOSYS", err)
		}
	}}
	d.Note(CallSplice, unix.ENOSYS)
	d.Note(CallSplice, unix.EPERM)
	if len(told) != 1 || told[0] != CallSplice || !d.Has(CallSplice) || d.Err(CallSplice) != unix.ENOSYS {
		t.Errorf("told of %v, denied %v by %v; want splice once, by ENOSYS", told, d.Has(CallSplice), d.Err(CallSplice))
	}
	if d.Has(CallPipe) || d.Err(CallPipe) != 0 {
		t.Error("another call is denied too")
	}
}

// Allow takes what may be a denial for one, however it is wrapped, and nothing else.
func TestAllow(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{os.NewSyscallError("setsockopt", unix.ENOPROTOOPT), true},
		{os.NewSyscallError("setsockopt", unix.EPERM), true},
		{os.NewSyscallError("setsockopt", unix.EACCES), true},
		{os.NewSyscallError("setsockopt", unix.ENOMEM), false},
		{errors.New("another"), false},
		{nil, false},
	} {
		var d Denials
		if got := d.Allow(CallSharePort, tt.err); got != tt.want || d.Has(CallSharePort) != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
}

// A call that works when it is tried is not denied, whatever error a use of it has had; one that does not exist is.
func TestConfirm(t *testing.T) {
	var d Denials
	for _, c := range []Call{CallRecvmmsg, CallRecvmsg, CallSendmmsg, CallSendmsg, CallAccept} {
		if d.Confirm(c, unix.EPERM) || d.Has(c) {
			t.Errorf("%v counts as denied, though it works", c)
		}
		if !d.Confirm(c, unix.ENOSYS) || !d.Has(c) {
			t.Errorf("%v does not count as denied, though the system does not know it", c)
		}
	}
}
