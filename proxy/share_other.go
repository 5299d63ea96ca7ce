//go:build !linux

package proxy

import "syscall"

// Other systems want sharing to be said before the bind, if they know it: there, a listener cannot get an address
// that overlaps with one that is open, and Apply says so.

func singly(syscall.Conn) {}

func sharePort(string, string, syscall.RawConn) error { return nil }

func shareConn(syscall.RawConn, bool) error { return nil }
