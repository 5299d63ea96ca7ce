package cycles

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// hearOfAddresses puts a value into changed, which has room for one, when an address of an interface has come or gone,
// until ctx ends: rtnetlink(7). The error says that the system does not let it.
func hearOfAddresses(ctx context.Context, changed chan<- struct{}) error {
	s, err := addressNotices()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // which ends the read
	b := make([]byte, 8<<10)
	for {
		// What the kernel says does not matter. That more was said than fits into the socket is a change too.
		if _, err := s.Read(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return ctx.Err()
		}
		select {
		case changed <- struct{}{}:
		default: // there is one already
		}
	}
}

// addressNotices opens a socket that hears of the addresses of interfaces.
func addressNotices() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}
