//go:build !unix

package deadline

import "syscall"

// isSettled is false: the system is not asked.
func isSettled(syscall.RawConn) bool { return false }
