//go:build !linux

package sys

import "syscall"

// Other systems want sharing to be said before the bind, if they know it: there, a listener cannot get an address
// that overlaps with one that is open, and Apply says so.

// DisableGRO does nothing here: no datagrams are joined.
func DisableGRO(syscall.Conn) {}

// ReusePort does nothing here.
func ReusePort(string, string, syscall.RawConn) error { return nil }

// SetReusePortConn does nothing here.
func SetReusePortConn(syscall.RawConn, bool) error { return nil }
