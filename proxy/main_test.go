package proxy

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/internal/testseccomp"
)

// TestMain fails the tests if they leave goroutines or descriptors behind.
func TestMain(m *testing.M) {
	testseccomp.Main()
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		deadline := time.Now().Add(10 * time.Second)
		for openDescriptors() > before+runtimeDescriptors && time.Now().Before(deadline) {
			runtime.GC() // package net keeps its own pipes until they are collected
			time.Sleep(10 * time.Millisecond)
		}
		if n := openDescriptors(); n > before+runtimeDescriptors {
			fmt.Fprintf(os.Stderr, "the tests left %d descriptors open, there were %d\n", n, before)
			entries, _ := os.ReadDir("/proc/self/fd")
			for _, e := range entries {
				target, _ := os.Readlink("/proc/self/fd/" + e.Name())
				fmt.Fprintln(os.Stderr, e.Name(), target)
			}
			code = 1
		}
	}
	os.Exit(code)
}

// runtimeDescriptors are the descriptors that Go opens when networking starts and keeps: an epoll instance and its
// wake-up.
const runtimeDescriptors = 2

// settledDescriptors is openDescriptors after package net's own pipes of earlier tests have been collected. Otherwise
// these pipes could disappear during a test.
func settledDescriptors() int {
	runtime.GC() // a sync.Pool keeps its contents through one collection
	runtime.GC()
	return openDescriptors()
}

// noMoreDescriptors returns a condition for eventually. Fewer descriptors are fine, because those of package net may be
// collected at any time.
func noMoreDescriptors(than int) func() error {
	return func() error {
		runtime.GC()
		if n := openDescriptors(); n > than {
			return fmt.Errorf("%d descriptors are open, want %d at most", n, than)
		}
		return nil
	}
}

// openDescriptors returns how many descriptors this process has open, or zero if the system does not tell.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
