package sys

import (
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file has the system calls of the loops. None of the loops' calls waits, so they bypass the Go scheduler
// (RawSyscall). Informing the scheduler twice for a call of a microsecond may cost more than the call. The socket calls
// recvfrom and sendto replace read and write. They save the kernel a layer, and the process a SIGPIPE for each broken
// connection.

// RecvStream reads the bytes that have arrived on a stream into b and returns their number. Zero without an error means
// that the peer has finished sending.
func RecvStream(fd int32, b []byte) (int, syscall.Errno) {
	for {
		var n uintptr
		size, err := faultMove(fd, len(b))
		if err == 0 {
			n, _, err = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
				uintptr(size), 0, 0, 0)
		}
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// PeekStream is RecvStream, but leaves the bytes in the socket.
func PeekStream(fd int32, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_PEEK, 0, 0)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// SendStream writes as much of b to a stream as fits in its send buffer, and returns the number of bytes written.
func SendStream(fd int32, b []byte) (int, syscall.Errno) {
	for {
		var n uintptr
		size, err := faultMove(fd, len(b))
		if err == 0 {
			n, _, err = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
				uintptr(size), unix.MSG_NOSIGNAL, 0, 0)
		}
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// Splice moves up to n bytes between a socket and a pipe. The argument socket says which of the two is the socket.
func Splice(from, to int32, n int, socket int32) (int, syscall.Errno) {
	for {
		var m uintptr
		size, err := faultMove(socket, n)
		if err == 0 {
			err = faultDenied(CallSplice)
		}
		if err == 0 {
			m, _, err = unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
				unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		}
		if err != unix.EINTR {
			return int(m), err
		}
	}
}

// Close closes a descriptor. Close ignores errors, because the descriptor is free even after an error; see close(2).
func Close(fd int32) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// ShutdownWrite ends the sending side of a stream. The peer reads the end of the stream and can still send.
func ShutdownWrite(fd int32) syscall.Errno {
	_, _, err := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return err
}

// AddrPort converts a socket address of IPv4 or IPv6. AddrPort returns an invalid address for a Unix socket.
func AddrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	p := uint16(port[0])<<8 | uint16(port[1])
	switch sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), p)
	case unix.AF_UNIX:
		return netip.AddrPort{}
	}
	a := netip.AddrFrom16(sa.Addr)
	if sa.Scope_id != 0 && a.IsLinkLocalUnicast() {
		if i, err := net.InterfaceByIndex(int(sa.Scope_id)); err == nil {
			a = a.WithZone(i.Name)
		}
	}
	return netip.AddrPortFrom(a, p)
}

// SocketName returns an address of a socket: its own with SYS_GETSOCKNAME, its peer's with SYS_GETPEERNAME. Unlike the
// functions of package unix, SocketName does not allocate.
func SocketName(call uintptr, fd int32) (sa unix.RawSockaddrInet6, err syscall.Errno) {
	size := uint32(unsafe.Sizeof(sa))
	_, _, err = unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	return sa, err
}

// PutAddr writes addr as a socket address of its family into sa, and returns the size of the address in bytes.
func PutAddr(sa *unix.RawSockaddrInet6, addr netip.AddrPort) uintptr {
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	port[0], port[1] = byte(addr.Port()>>8), byte(addr.Port())
	a := addr.Addr()
	if a.Is4() {
		sa.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr = a.As4()
		return unix.SizeofSockaddrInet4
	}
	sa.Family = unix.AF_INET6
	sa.Addr = a.As16()
	if zone := a.Zone(); zone != "" {
		sa.Scope_id = uint32(InterfaceOf(zone))
	}
	return unix.SizeofSockaddrInet6
}

// AddrSize returns the size in bytes of a socket address of either family.
func AddrSize(sa *unix.RawSockaddrInet6) uint32 {
	if sa.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// Family returns the address family of a socket that dials addr.
func Family(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// StartConnect starts to connect a new socket of the given type to addr. EINPROGRESS means that connecting continues.
// If from is valid, the socket has that address, which may be one of another host, and a port that the kernel chooses.
// An address that does not fit addr or the socket is the error EADDRNOTAVAIL.
func StartConnect(from netip.Addr, addr netip.AddrPort, kind int) (int32, syscall.Errno) {
	var sa unix.RawSockaddrInet6
	size := PutAddr(&sa, addr)
	return startConnect(from, Family(addr.Addr()), kind, unsafe.Pointer(&sa), size)
}

// StartConnectUnix connects a new stream socket to the Unix socket at path. Such a connect never continues. EAGAIN
// means that the queue of new connections is full at the listener, and EINVAL that no path can be so long.
func StartConnectUnix(path string) (int32, syscall.Errno) {
	var sa unix.RawSockaddrUnix
	if len(path) >= len(sa.Path) { // the path needs a zero byte behind it
		return -1, unix.EINVAL
	}
	sa.Family = unix.AF_UNIX
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&sa.Path)), len(sa.Path)), path)
	return startConnect(netip.Addr{}, unix.AF_UNIX, unix.SOCK_STREAM, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

func startConnect(from netip.Addr, family, kind int, sa unsafe.Pointer, size uintptr) (int32, syscall.Errno) {
	fd, _, err := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family),
		uintptr(kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), 0)
	if err != 0 {
		return -1, err
	}
	if from.IsValid() {
		if err := bindTransparent(int32(fd), family, from); err != 0 {
			Close(int32(fd))
			return -1, err
		}
	}
	_, _, err = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(sa), size)
	switch err = faultConnect(int32(fd), err); err {
	case 0, unix.EINPROGRESS:
		return int32(fd), err
	case unix.EINTR:
		// Connecting continues after EINTR; connect must not be called again, see connect(2).
		return int32(fd), unix.EINPROGRESS
	case unix.EINVAL:
		if from.IsValid() { // there is no route to addr for packets from this address
			err = unix.EADDRNOTAVAIL
		}
	}
	Close(int32(fd))
	return -1, err
}

// SetOption sets a socket option and ignores errors. Options only improve connections, and the options that the system
// denies are recorded when the engine starts.
func SetOption(fd int32, level, name, value int) { _ = tryOption(fd, level, name, value) }

// tryOption sets a socket option and returns the error.
func tryOption(fd int32, level, name, value int) syscall.Errno {
	v := int32(value)
	_, _, err := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return err
}

// getOption reads a socket option of size bytes into the memory at to.
func getOption(fd, level, name int, to unsafe.Pointer, size uintptr) syscall.Errno {
	n := uint32(size)
	_, _, err := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(to),
		uintptr(unsafe.Pointer(&n)), 0)
	return err
}

// SocketError returns the pending error of a socket (SO_ERROR) and clears it.
func SocketError(fd int32) syscall.Errno {
	if err := faultError(fd); err != 0 {
		return err
	}
	var v int32
	if err := getOption(int(fd), unix.SOL_SOCKET, unix.SO_ERROR, unsafe.Pointer(&v), unsafe.Sizeof(v)); err != 0 {
		return err
	}
	return syscall.Errno(v)
}

// SetKeepAlive makes the kernel detect that the peer of a TCP socket is gone. Accepted sockets inherit this option from
// their listener.
func SetKeepAlive(fd int32, c net.KeepAliveConfig) {
	SetOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(c.Idle.Seconds()))
	SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(c.Interval.Seconds()))
	SetOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, c.Count)
}

// ResetOnClose makes closing send a RST and discard unsent bytes. If SO_LINGER is denied, ResetOnClose resets the
// connection at once.
func ResetOnClose(fd int32) {
	if setLinger(fd) != 0 {
		disconnect(fd)
	}
}

// setLinger makes closing a socket discard unsent bytes and send a RST.
func setLinger(fd int32) syscall.Errno {
	if err := faultDenied(CallLinger); err != 0 {
		return err
	}
	l := unix.Linger{Onoff: 1}
	_, _, err := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
	return err
}

// disconnect resets the connection of a socket: connect(2) to AF_UNSPEC dissolves the association.
func disconnect(fd int32) {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
}

// EpollWait returns the events that an epoll instance has. EpollWait waits for timeout milliseconds, or for ever if
// timeout is negative. EpollWait informs the Go scheduler only when it waits.
func EpollWait(epfd int, events []unix.EpollEvent, timeout int) (int, syscall.Errno) {
	var n uintptr
	events, err := faultPoll(events)
	if err != 0 {
		return 0, err
	}
	if timeout == 0 {
		n, _, err = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd),
			uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	} else {
		n, _, err = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd),
			uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(timeout), 0, 0)
	}
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}

// EpollAdd makes an epoll instance report the given events of fd. The events carry number in Fd and side in Pad.
func EpollAdd(epfd int, fd int32, events uint32, number, side int32) syscall.Errno {
	if events&unix.EPOLLEXCLUSIVE != 0 {
		if err := faultDenied(CallExclusive); err != 0 {
			return err
		}
	}
	e := unix.EpollEvent{Events: events, Fd: number, Pad: side}
	faultWatched(epfd, fd, &e)
	return epollControl(epfd, unix.EPOLL_CTL_ADD, fd, &e)
}

// EpollRemove makes an epoll instance stop reporting events of fd.
func EpollRemove(epfd int, fd int32) syscall.Errno {
	return epollControl(epfd, unix.EPOLL_CTL_DEL, fd, &unix.EpollEvent{})
}

func epollControl(epfd, op int, fd int32, e *unix.EpollEvent) syscall.Errno {
	_, _, err := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(e)), 0, 0)
	return err
}

// Boolean returns b as the integer that socket options take.
func Boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
