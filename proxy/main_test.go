package proxy

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the tests if they leave goroutines or descriptors behind.
func TestMain(m *testing.M) {
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		deadline := time.Now().Add(10 * time.Second)
		for openDescriptors() > before+runtimeDescriptors && time.Now().Before(deadline) {
			runtime.GC() // package net keeps pipes of its own until they are collected
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

// runtimeDescriptors are what Go itself opens when networking starts, and keeps: an epoll instance and its wake-up.
const runtimeDescriptors = 2

// openDescriptors is how many descriptors this process has open; zero where the system does not tell.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
