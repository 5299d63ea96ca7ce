//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// resizes returns a channel that receives a value when the size of the terminal has changed, and a function that ends
// that.
func resizes() (<-chan os.Signal, func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	return changed, func() { signal.Stop(changed) }
}
