package sys

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accept takes a connection from the queue of a listener and makes its socket non-blocking. Accept uses accept4(2), or
// accept(2) if the system denies accept4.
func (d *Denials) Accept(fd int32) (int32, netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrInet6 // an address of either family fits
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

// acceptPlainly accepts with accept(2). No fault is injected here, because AcceptFile is called from Go's poller: the
// poller is edge-triggered and would not call again after a false EAGAIN.
func acceptPlainly(fd int32, sa *unix.RawSockaddrInet6) (int32, syscall.Errno) {
	syscall.ForkLock.RLock() // keep the socket from a program started before FD_CLOEXEC is set
	defer syscall.ForkLock.RUnlock()
	for {
		size := uint32(unsafe.Sizeof(*sa))
		c, err := rawAccept(uintptr(fd), unsafe.Pointer(sa), &size)
		switch err {
		case 0:
			// FcntlInt and SetNonblock fail only for an invalid descriptor.
			_, _ = unix.FcntlInt(c, unix.F_SETFD, unix.FD_CLOEXEC)
			_ = unix.SetNonblock(int(c), true)
			return int32(c), 0
		case unix.EINTR:
		default:
			return -1, err
		}
	}
}

// AcceptDenied reports whether err, returned by package net's accept, means that the system denies accept4. A firewall
// may deny a single client with the same error, so AcceptDenied tries accept4 itself.
func AcceptDenied(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && isDenialOfTry(errno) && isDenialOfTry(new(trial).try(CallAccept))
}

// AcceptFile accepts a connection with accept(2).
func AcceptFile(fd uintptr) (*os.File, error) {
	var sa unix.RawSockaddrInet6 // the address is not used, so the kernel may truncate it
	c, err := acceptPlainly(int32(fd), &sa)
	if err != 0 {
		return nil, os.NewSyscallError("accept", err)
	}
	return os.NewFile(uintptr(c), "accepted"), nil
}
