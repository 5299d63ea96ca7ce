package sys

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accept takes a client from the queue of a listener, as a socket that does not block: by accept4(2), or by accept(2)
// where the system denies that.
func (d *Denials) Accept(fd int32) (int32, netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrInet6 // room for either family
	if !d.Has(CallAccept) {
		c, err := accept4(fd, &sa)
		if !IsDenial(err) || !d.Confirm(CallAccept, err) {
			return c, AddrPort(&sa), err
		}
	}
	if err := faultAccept(); err != 0 && err != unix.EINTR {
		return -1, netip.AddrPort{}, err
	}
	c, err := acceptPlainly(fd, &sa)
	return c, AddrPort(&sa), err
}

func accept4(fd int32, sa *unix.RawSockaddrInet6) (int32, syscall.Errno) {
	for {
		size := uint32(unsafe.Sizeof(*sa))
		c, err := ^uintptr(0), faultAccept()
		if err == 0 {
			err = faultDenied(CallAccept)
		}
		if err == 0 {
			c, _, err = unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(sa)),
				uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		}
		if err != unix.EINTR {
			return int32(c), err
		}
	}
}

// acceptPlainly accepts by accept(2). No fault is injected here: AcceptFile is called from Go's poller, which is
// edge-triggered and would not ask again after an EAGAIN that is not true.
func acceptPlainly(fd int32, sa *unix.RawSockaddrInet6) (int32, syscall.Errno) {
	syscall.ForkLock.RLock() // a program that is started now must not have the socket
	defer syscall.ForkLock.RUnlock()
	for {
		size := uint32(unsafe.Sizeof(*sa))
		c, err := rawAccept(uintptr(fd), unsafe.Pointer(sa), &size)
		switch err {
		case 0:
			_, _ = unix.FcntlInt(c, unix.F_SETFD, unix.FD_CLOEXEC) // these fail only for what is no descriptor
			_ = unix.SetNonblock(int(c), true)
			return int32(c), 0
		case unix.EINTR:
		default:
			return -1, err
		}
	}
}

// AcceptDenied reports whether err, of package net's accept, means that the system denies accept4. A firewall may
// deny one client with the same error.
func AcceptDenied(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && isDenialOfTry(errno) && isDenialOfTry(new(trial).try(CallAccept))
}

// AcceptFile accepts a connection by accept(2).
func AcceptFile(fd uintptr) (*os.File, error) {
	var sa unix.RawSockaddrInet6 // a longer address is cut
	c, err := acceptPlainly(int32(fd), &sa)
	if err != 0 {
		return nil, os.NewSyscallError("accept", err)
	}
	return os.NewFile(uintptr(c), "accepted"), nil
}
