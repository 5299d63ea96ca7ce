package sys

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
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

// A denial is an error that a call has for itself. The network's errors are none, and some are only where nothing else
// can be meant.
func TestIsDenial(t *testing.T) {
	for _, tt := range []struct {
		err           syscall.Errno
		denial, ofTry bool
	}{
		{0, false, false},
		{unix.ENOSYS, true, true},
		{unix.EPERM, true, true},
		{unix.EINVAL, true, true},
		{unix.EACCES, false, true},
		{unix.EOPNOTSUPP, false, true},
		{unix.ENOPROTOOPT, false, true},
		{unix.EAGAIN, false, false},
		{unix.EBADF, false, false},
		{unix.ECONNREFUSED, false, false},
		{unix.EHOSTUNREACH, false, false},
		{unix.ENOBUFS, false, false},
	} {
		if got := IsDenial(tt.err); got != tt.denial {
			t.Errorf("IsDenial(%v) is %v", tt.err, got)
		}
		if got := isDenialOfTry(tt.err); got != tt.ofTry {
			t.Errorf("isDenialOfTry(%v) is %v", tt.err, got)
		}
	}
}

// No call counts as denied because there are no sockets to try it with.
func TestTryWithoutSockets(t *testing.T) {
	none := &trial{tcp: -1, tcp6: -1, udp: -1, udp6: -1, epoll: -1}
	for c := range NumCalls {
		if err := none.try(c); isDenialOfTry(err) {
			t.Errorf("%v counts as denied: %v", c, err)
		}
	}
}

// Trying calls leaves no descriptors behind.
func TestTryLeavesNothing(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	descriptors() // has the runtime open what it needs for that
	before := descriptors()
	var d Denials
	for range 5 {
		d.Try([]Call{CallPipe, CallExclusive, CallAccept, CallSplice})
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors are left", after-before)
	}
}

// Denials that many find at once are told once each.
func TestDenialsAtOnce(t *testing.T) {
	var told [NumCalls]atomic.Int64
	d := Denials{OnDenial: func(c Call, _ syscall.Errno) { told[c].Add(1) }}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for c := range NumCalls {
				d.Note(c, unix.EPERM)
			}
		})
	}
	wg.Wait()
	for c := range NumCalls {
		if n := told[c].Load(); n != 1 || !d.Has(c) {
			t.Errorf("%v was told %d times, want once", c, n)
		}
	}
}
