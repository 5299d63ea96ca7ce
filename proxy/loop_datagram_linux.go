package proxy

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvDatagram and sendDatagram are recv and send for datagrams, which no fault may cut: only reading is told that
// there is nothing.

func recvDatagram(fd int32, b []byte) (int, syscall.Errno) {
	if _, fault := faultIO(fd, 1); fault != 0 {
		return 0, fault
	}
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), 0, 0, 0)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

func sendDatagram(fd int32, b []byte) syscall.Errno {
	for {
		_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive takes datagrams as far as there are any, and returns how many. EAGAIN means that there are none.
func (d *denials) receive(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	count, fault := faultIO(fd, len(headers))
	if fault != 0 {
		return 0, fault
	}
	headers = headers[:count]
	if d.has(callRecvmmsg) {
		return d.receiveSingly(fd, headers)
	}
	n, err := recvmmsg(fd, headers)
	if !isDenial(err) || !d.confirm(callRecvmmsg, err) {
		return n, err
	}
	return d.receiveSingly(fd, headers)
}

// receiveSingly takes datagrams by a call for each. From a connected socket it takes one: an error that comes behind it
// would be lost, and says that the endpoint refuses.
func (d *denials) receiveSingly(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	if headers[0].Name == nil {
		headers = headers[:1]
	}
	for i := range headers {
		h := &headers[i]
		n, err := d.receiveOne(fd, h)
		if err != 0 && i == 0 {
			return 0, err
		}
		if err != 0 {
			return i, 0
		}
		h.n = uint32(n)
	}
	return len(headers), 0
}

func (d *denials) receiveOne(fd int32, h *mmsghdr) (int, syscall.Errno) {
	for {
		var n uintptr
		err := faultDenied(callRecvmsg)
		switch {
		case d.has(callRecvmsg):
			h.SetControllen(0)
			n, _, err = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(h.Iov.Base)),
				uintptr(h.Iov.Len),
				unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(h.Name)), uintptr(unsafe.Pointer(&h.Namelen)))
		case err == 0:
			n, _, err = unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h.Msghdr)),
				unix.MSG_DONTWAIT)
		}
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// send sends messages up to the first that cannot be sent, and returns how many. The error is that of the first one.
func (d *denials) send(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	if d.has(callSendmmsg) {
		return d.sendSingly(fd, headers)
	}
	n, err := sendmmsg(fd, headers)
	if !isDenial(err) || !d.confirm(callSendmmsg, err) {
		return n, err
	}
	return d.sendSingly(fd, headers)
}

// sendSingly is send by a call for each message.
func (d *denials) sendSingly(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	for i := range headers {
		if err := d.sendOne(fd, &headers[i]); err != 0 {
			if i == 0 {
				return 0, err
			}
			return i, 0
		}
	}
	return len(headers), 0
}

func (d *denials) sendOne(fd int32, h *mmsghdr) syscall.Errno {
	if !d.has(callSendmsg) {
		err := sendmsg(fd, h)
		if !isDenial(err) || !d.confirm(callSendmsg, err) {
			return err
		}
	}
	return sendWhole(fd, h)
}

// sendWhole sends a message by sendto(2), without the address that it is to leave from. One that the kernel is to cut,
// that is in pieces, or that has hops, has the error of a kernel that takes no such message.
func sendWhole(fd int32, h *mmsghdr) syscall.Errno {
	if h.Iovlen != 1 || isToBeCut(h) || hasHops(h) {
		return unix.EINVAL
	}
	for {
		_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(h.Iov.Base)),
			uintptr(h.Iov.Len),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
		if err != unix.EINTR {
			return err
		}
	}
}

// isToBeCut reports whether a message has the control message that has the kernel cut it, which is the last one.
func isToBeCut(h *mmsghdr) bool {
	space := unix.CmsgSpace(2)
	if int(h.Controllen) < space {
		return false
	}
	last := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(h.Control), int(h.Controllen)-space))
	return last.Level == unix.SOL_UDP && last.Type == unix.UDP_SEGMENT
}

// hasHops reports whether a message has the control message that gives it its hops. Then it is the first one: only
// answers have one that says where they leave from.
func hasHops(h *mmsghdr) bool {
	if int(h.Controllen) < hopsRoom {
		return false
	}
	first := (*unix.Cmsghdr)(unsafe.Pointer(h.Control))
	return isHops(first.Level, first.Type)
}

func recvmmsg(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	for {
		n, err := uintptr(0), faultDenied(callRecvmmsg)
		if err == 0 {
			n, _, err = unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(headers))),
				uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
		}
		if err == 0 {
			return int(n), 0
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}

func sendmmsg(fd int32, headers []mmsghdr) (int, syscall.Errno) {
	for {
		n, err := uintptr(0), faultDenied(callSendmmsg)
		if err == 0 {
			n, _, err = unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
				uintptr(unsafe.Pointer(unsafe.SliceData(headers))),
				uintptr(len(headers)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		}
		if err == 0 {
			return int(n), 0
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}

func sendmsg(fd int32, h *mmsghdr) syscall.Errno {
	for {
		err := faultDenied(callSendmsg)
		if err == 0 {
			_, _, err = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h.Msghdr)),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if err != unix.EINTR {
			return err
		}
	}
}
