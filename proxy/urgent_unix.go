//go:build unix

package proxy

import "golang.org/x/sys/unix"

// urgentInline leaves urgent data, as telnet and FTP send it, in the stream (RFC 6093). Without urgentInline the urgent
// byte would be lost.
func urgentInline(c streamConn) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
	}
}
