//go:build !linux

package upgrade

import "os/exec"

// standBeside does nothing: only systemd, which needs Linux, cares whose child a successor is.
func standBeside(*exec.Cmd) {}

// waitFor waits until the process of cmd has ended, and reaps it.
func waitFor(cmd *exec.Cmd) { _ = cmd.Wait() } // ProcessState has the result
