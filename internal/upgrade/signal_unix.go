//go:build unix

package upgrade

import "syscall"

// Signal asks a lictor for an upgrade.
const Signal = syscall.SIGUSR2
