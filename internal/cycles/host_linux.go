package cycles

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// hearOfAddresses sends to changed when an interface gets or loses an address, until ctx ends; see rtnetlink(7). The
// channel must have a buffer of one. An error means that the system does not report such changes.
func hearOfAddresses(ctx context.Context, changed chan<- struct{}) error {
	s, err := addressNotices()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // closing the socket ends the read
	b := make([]byte, 8<<10)
	for {
		// The content of a message does not matter. ENOBUFS means that messages were lost, which is a change too.
		if _, err := s.Read(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return ctx.Err()
		}
		select {
		case changed <- struct{}{}:
		default: // a report is pending already
		}
	}
}

// addressNotices opens a socket that receives messages about the interfaces' addresses.
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
