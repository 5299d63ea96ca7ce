//go:build !unix

package deadline

import "syscall"

// isSettled returns false, because this system offers no way to find out.
func isSettled(syscall.RawConn) bool { return false }
