//go:build !linux

package sys

import "syscall"

// Other systems accept SO_REUSEPORT only before the bind, if they have it. On such a system a listener cannot open an
// address that overlaps an open one, and Apply returns an error.

// DisableGRO does nothing on this system, which never joins datagrams.
func DisableGRO(syscall.Conn) {}

// ReusePort does nothing on this system.
func ReusePort(string, string, syscall.RawConn) error { return nil }

// SetReusePortConn does nothing on this system.
func SetReusePortConn(syscall.RawConn, bool) error { return nil }
