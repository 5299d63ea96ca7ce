//go:build unix

package upgrade

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy"
)

// firstInherited is the first descriptor that systemd passes; see sd_listen_fds(3).
const firstInherited = 3

// ActivationSockets returns the sockets that systemd has opened for this process (socket activation). ActivationSockets
// returns an error if a descriptor is no listener of a service, which means that the unit files are wrong.
func ActivationSockets(getenv func(string) string) ([]proxy.Inherited, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil // the sockets are for another process
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS: %q is not a number of sockets", getenv("LISTEN_FDS"))
	}
	var all []proxy.Inherited
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		unix.CloseOnExec(fd)
		one, err := activationSocket(fd)
		if err != nil {
			return nil, fmt.Errorf("inherited descriptor %d: %w", fd, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func activationSocket(fd int) (one proxy.Inherited, err error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return one, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		one.Addr.AddrPort = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		one.Addr.AddrPort = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrUnix:
		if !filepath.IsAbs(sa.Name) {
			return one, fmt.Errorf("a Unix socket without a path: the unit needs ListenStream=/PATH")
		}
		one.Addr.Path, one.Foreign = sa.Name, true
	default:
		return one, fmt.Errorf("neither an IP nor a Unix socket: the unit needs ListenStream= or ListenDatagram=")
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return one, os.NewSyscallError("getsockopt", err)
	}
	if one.Addr.Path != "" && kind != unix.SOCK_STREAM {
		return one, fmt.Errorf("%s is not a stream socket: the unit needs ListenStream=", one.Addr)
	}
	if kind == unix.SOCK_DGRAM {
		one.Protocol = proxy.UDP
	} else if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return one, fmt.Errorf("the socket of %s does not listen: the unit must not have Accept=yes", one.Addr)
	}
	one.File = os.NewFile(uintptr(fd), one.Addr.String())
	return one, nil
}
