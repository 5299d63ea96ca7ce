//go:build unix

package main

import "syscall"

// Signal asks a lictor for an upgrade.
const Signal = syscall.SIGUSR2
