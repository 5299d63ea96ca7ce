package sys

import (
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TryTransparent returns nil if this process may bind sockets to addresses of other hosts (IP_TRANSPARENT, see ip(7)).
// The error wraps EPERM if the process has neither CAP_NET_ADMIN nor CAP_NET_RAW.
func TryTransparent() error {
	family := unix.AF_INET
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == unix.EAFNOSUPPORT { // a host without IPv4
		family = unix.AF_INET6
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if errno := setTransparent(int32(fd), family); errno != 0 {
		return os.NewSyscallError("setsockopt IP_TRANSPARENT", errno)
	}
	return nil
}

// Transparent is a net.Dialer.Control function. Transparent lets the dialer's LocalAddr be an address of another host.
func Transparent(_, _ string, c syscall.RawConn) error {
	var errno syscall.Errno
	err := c.Control(func(fd uintptr) {
		family, get := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if get != nil {
			family = unix.AF_INET
		}
		errno = setTransparent(int32(fd), family)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("setsockopt IP_TRANSPARENT", errno)
	}
	return err
}

// setTransparent lets a socket of the given family be bound to an address of another host.
func setTransparent(fd int32, family int) syscall.Errno {
	// The kernel chooses the port when the socket is connected, so that connections to other endpoints may use the same
	// port. Without the option the port is chosen earlier, which works too.
	SetOption(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if family == unix.AF_INET6 {
		return tryOption(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return tryOption(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

// bindTransparent binds a socket of the given family to from, which may be an address of another host. Every failure
// but a denial is EADDRNOTAVAIL, so that it cannot be mistaken for a failure of the endpoint.
func bindTransparent(fd int32, family int, from netip.Addr) syscall.Errno {
	if family != Family(from) {
		return unix.EADDRNOTAVAIL
	}
	if err := setTransparent(fd, family); err != 0 {
		return err
	}
	var sa unix.RawSockaddrInet6
	size := PutAddr(&sa, netip.AddrPortFrom(from, 0))
	if _, _, err := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); err != 0 {
		return unix.EADDRNOTAVAIL
	}
	return 0
}
