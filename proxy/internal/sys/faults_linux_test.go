//go:build faults

package sys

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A denied call works as often as it is to, and then fails until it is permitted again.
func TestDeny(t *testing.T) {
	Deny(CallPipe, unix.EPERM, 2)
	defer Permit(CallPipe)
	for i, want := range []bool{true, true, false, false} {
		p, err := OpenPipe()
		if (err == 0) != want {
			t.Errorf("call %d: got %v, want it to work: %v", i, err, want)
		}
		if err == 0 {
			p.Close()
		}
	}
	if n := DenialsOf(CallPipe); n != 2 {
		t.Errorf("got %d denials, want 2", n)
	}
	var d Denials
	if d.Try([]Call{CallPipe, CallSplice}); !d.Has(CallPipe) || d.Has(CallSplice) {
		t.Error("a trial shows another denial than that of pipe2")
	}
	DenyAgain(CallPipe, 1)
	if p, err := OpenPipe(); err != 0 {
		t.Error(err)
	} else {
		p.Close()
	}
	Permit(CallPipe)
	for range 3 {
		p, err := OpenPipe()
		if err != 0 {
			t.Fatal(err)
		}
		p.Close()
	}
}
