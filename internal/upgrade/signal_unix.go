//go:build unix

package upgrade

import "syscall"

// Signal asks Lictor to upgrade.
const Signal = syscall.SIGUSR2
