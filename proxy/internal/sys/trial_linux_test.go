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

// Every call has its own name, can be tried, and is not denied by a system on which the tests run.
func TestTryEachCall(t *testing.T) {
	names := map[string]bool{}
	var d Denials
	var all []Call
	for c := range NumCalls {
		if name := c.String(); name == "" || names[name] {
			t.Errorf("call %d has the name %q, which is empty or not unique", c, name)
		}
		names[c.String()] = true
		all = append(all, c)
	}
	d.Try(all)
	for _, c := range all {
		if err := d.Err(c); d.Has(c) || err != 0 {
			t.Errorf("%v is recorded as denied: %v", c, err)
		}
	}
}

// A denial is recorded once, with its first error, and OnDenial is called once.
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
		t.Errorf("OnDenial got %v, denied is %v with %v; want splice once, with ENOSYS",
			told, d.Has(CallSplice), d.Err(CallSplice))
	}
	if d.Has(CallPipe) || d.Err(CallPipe) != 0 {
		t.Error("another call is recorded as denied")
	}
}

// Allow records errors that mean a denial, however they are wrapped, and no others.
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

// Confirm denies a call that works in a trial, whatever error a use returned, but not after ENOSYS.
func TestConfirm(t *testing.T) {
	var d Denials
	for _, c := range []Call{CallRecvmmsg, CallRecvmsg, CallSendmmsg, CallSendmsg, CallAccept} {
		if d.Confirm(c, unix.EPERM) || d.Has(c) {
			t.Errorf("%v is recorded as denied, though it works", c)
		}
		if !d.Confirm(c, unix.ENOSYS) || !d.Has(c) {
			t.Errorf("%v is not recorded as denied after ENOSYS", c)
		}
	}
}

// A denial is an error about the call itself. Network errors do not count, and some errors count only in a trial.
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
			t.Errorf("IsDenial(%v) = %v", tt.err, got)
		}
		if got := isDenialOfTry(tt.err); got != tt.ofTry {
			t.Errorf("isDenialOfTry(%v) = %v", tt.err, got)
		}
	}
}

// No call is recorded as denied because there are no sockets to try it with.
func TestTryWithoutSockets(t *testing.T) {
	none := &trial{tcp: -1, tcp6: -1, udp: -1, udp6: -1, epoll: -1}
	for c := range NumCalls {
		if err := none.try(c); isDenialOfTry(err) {
			t.Errorf("%v is recorded as denied: %v", c, err)
		}
	}
}

// Try leaves no descriptors open.
func TestTryLeavesNothing(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	descriptors() // lets the runtime open its own descriptors first
	before := descriptors()
	var d Denials
	for range 5 {
		d.Try([]Call{CallPipe, CallExclusive, CallAccept, CallSplice})
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors are still open", after-before)
	}
}

// OnDenial is called once for each call, even if several goroutines record its denial at once.
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
			t.Errorf("OnDenial got %v %d times, want once", c, n)
		}
	}
}
