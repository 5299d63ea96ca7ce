package sys

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsDenial reports whether err may mean that the system denies the call itself. Network errors do not count: they are a
// socket's pending error, which a second call would not return again.
func IsDenial(err syscall.Errno) bool {
	return err == unix.ENOSYS || err == unix.EPERM || err == unix.EINVAL
}

// isDenialOfTry reports whether err denies a call that had nothing to do. Such a call cannot fail for other reasons.
func isDenialOfTry(err syscall.Errno) bool {
	return IsDenial(err) || err == unix.EACCES || err == unix.EOPNOTSUPP || err == unix.ENOPROTOOPT
}

// Allow reports whether err is a denial of c, and records the denial. If so, the caller can continue without c.
func (d *Denials) Allow(c Call, err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) || !isDenialOfTry(errno) {
		return false
	}
	d.Note(c, errno)
	return true
}

// Confirm reports whether err, returned by a use of c, means that the system denies c, and records the denial. The
// network causes some of these errors too, for example a firewall that drops one datagram. Confirm therefore tries c
// with nothing to do.
func (d *Denials) Confirm(c Call, err syscall.Errno) bool {
	if err != unix.ENOSYS && !isDenialOfTry(new(trial).tryFaulty(c)) {
		return false
	}
	d.Note(c, err)
	return true
}

// Try tries all the given calls with unconnected sockets or without any, and records those that are denied.
func (d *Denials) Try(all []Call) {
	t := newTrial()
	defer t.close()
	for _, c := range all {
		if err := t.tryFaulty(c); isDenialOfTry(err) {
			d.Note(c, err)
		}
	}
}

// A trial holds sockets to try calls with. A socket that cannot be opened is -1; a call on it returns an error that is
// no denial. The zero trial is enough for the calls that accept, receive and send.
type trial struct{ tcp, tcp6, udp, udp6, epoll int }

func newTrial() *trial {
	open := func(family, kind int) int {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1
		}
		return fd
	}
	t := &trial{
		tcp: open(unix.AF_INET, unix.SOCK_STREAM), tcp6: open(unix.AF_INET6, unix.SOCK_STREAM),
		udp: open(unix.AF_INET, unix.SOCK_DGRAM), udp6: open(unix.AF_INET6, unix.SOCK_DGRAM),
	}
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.epoll = -1
	}
	return t
}

func (t *trial) close() {
	for _, fd := range []int{t.tcp, t.tcp6, t.udp, t.udp6, t.epoll} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// tryFaulty tries c, after the injected faults.
func (t *trial) tryFaulty(c Call) syscall.Errno {
	if err := faultDenied(c); err != 0 {
		return err
	}
	return t.try(c)
}

// try calls c in a way that has no effect. The error may be the result of the invalid arguments.
func (t *trial) try(c Call) syscall.Errno {
	none := ^uintptr(0) // an invalid descriptor
	switch c {
	case CallSplice:
		return rawCall(unix.SYS_SPLICE, none, 0, none, 0, 0) // a splice of 0 bytes
	case CallPipe:
		return rawCall(unix.SYS_PIPE2, 0, 0, 0, 0, 0) // pipe2 has no memory for the descriptors and fails
	case CallRoom:
		_, err := sendMemory(t.tcp)
		return err
	case CallWritable:
		_, err := pollNow(t.tcp)
		return err
	case CallUnsent:
		_, err := queuedIn(t.tcp)
		return err
	case CallRecvmmsg:
		return rawCall(unix.SYS_RECVMMSG, none, 0, 0, 0, 0)
	case CallRecvmsg:
		return rawCall(unix.SYS_RECVMSG, none, 0, 0, 0, 0)
	case CallSendmmsg:
		return rawCall(unix.SYS_SENDMMSG, none, 0, 0, 0, 0)
	case CallSendmsg:
		return rawCall(unix.SYS_SENDMSG, none, 0, 0, 0, 0)
	case CallCut:
		var size int32
		return getOption(t.udp, unix.SOL_UDP, unix.UDP_SEGMENT, unsafe.Pointer(&size), unsafe.Sizeof(size))
	case CallAccept:
		return rawCall(unix.SYS_ACCEPT4, none, 0, 0, 0, 0)
	case CallExclusive:
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE}
		return epollControl(t.epoll, unix.EPOLL_CTL_ADD, int32(t.udp), &e)
	}
	return t.trySetting(c)
}

// trySetting tries c, a socket option, by setting it.
func (t *trial) trySetting(c Call) syscall.Errno {
	switch c {
	case CallJoin:
		return tryOption(int32(t.udp), unix.SOL_UDP, unix.UDP_GRO, 1)
	case CallSharePort:
		return tryOption(int32(t.udp), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	case CallReuseAddr:
		return tryOption(int32(t.tcp), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	case CallLocalAddr:
		err := tryOption(int32(t.udp), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		if !isDenialOfTry(err) {
			err = tryOption(int32(t.udp6), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return err
	case CallHopsLeft:
		err := tryOption(int32(t.udp), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
		if !isDenialOfTry(err) {
			err = tryOption(int32(t.udp6), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		}
		return err
	case CallHops:
		return tryOption(int32(t.udp), unix.IPPROTO_IP, unix.IP_TTL, 1)
	case CallLinger:
		return setLinger(int32(t.tcp))
	case CallNoDelay:
		return tryOption(int32(t.tcp), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	case CallKeepAlive:
		err := tryOption(int32(t.tcp), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		if !isDenialOfTry(err) {
			err = tryOption(int32(t.tcp), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
		}
		return err
	case CallUrgentInline:
		return tryOption(int32(t.tcp), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	case CallOnlyIPv6:
		return tryOption(int32(t.tcp6), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	case CallBuffers:
		return tryOption(int32(t.udp), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10)
	}
	return 0
}

func rawCall(number uintptr, a, b, c, d, e uintptr) syscall.Errno {
	_, _, err := unix.RawSyscall6(number, a, b, c, d, e, 0)
	return err
}
