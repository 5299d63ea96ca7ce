package testproc

import (
	"syscall"
	"testing"
)

// A process that Freeze has stopped does nothing more. One that has ended, or is stopped already, is no error.
func TestFreeze(t *testing.T) {
	p := start(t, "while :; do :; done", nil)
	for range 2 {
		if err := Freeze(p.Pid()); err != nil {
			t.Fatal(err)
		}
		if !isFrozen(p.Pid()) {
			t.Error("the process is running")
		}
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	Await(t, "the process to run again", func() bool { return !isFrozen(p.Pid()) })
	p.Kill()
	if err := Freeze(p.Pid()); err != nil {
		t.Errorf("a process that has ended: %v", err)
	}
}
