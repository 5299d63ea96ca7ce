package sys

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mmsghdr is struct mmsghdr of recvmmsg(2).
type Mmsghdr struct {
	unix.Msghdr
	Len uint32 // number of bytes received or sent
}

// RecvDatagram receives one datagram into b and returns its size in bytes. Bytes beyond len(b) are lost. A datagram may
// be empty: unlike with RecvStream, zero does not mean the end.
func RecvDatagram(fd int32, b []byte) (int, syscall.Errno) {
	// Faults do not shorten b, because a truncated datagram would be a different one.
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

// SendDatagram sends b as one datagram over a connected socket.
func SendDatagram(fd int32, b []byte) syscall.Errno {
	for {
		_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// Receive receives up to len(headers) datagrams and returns their number. EAGAIN means that none has arrived.
func (d *Denials) Receive(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
	count, fault := faultIO(fd, len(headers))
	if fault != 0 {
		return 0, fault
	}
	headers = headers[:count]
	if d.Has(CallRecvmmsg) {
		return d.receiveSingly(fd, headers)
	}
	n, err := recvmmsg(fd, headers)
	if !IsDenial(err) || !d.Confirm(CallRecvmmsg, err) {
		return n, err
	}
	return d.receiveSingly(fd, headers)
}

// receiveSingly receives datagrams with one call for each. From a connected socket receiveSingly receives only one
// datagram. A second call could return the error that the endpoint refuses datagrams, and that error would be lost.
func (d *Denials) receiveSingly(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
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
		h.Len = uint32(n)
	}
	return len(headers), 0
}

func (d *Denials) receiveOne(fd int32, h *Mmsghdr) (int, syscall.Errno) {
	for {
		var n uintptr
		err := faultDenied(CallRecvmsg)
		switch {
		case d.Has(CallRecvmsg):
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

// Send sends messages until one fails, and returns the number sent. The error is nonzero only if the first one fails.
func (d *Denials) Send(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
	if d.Has(CallSendmmsg) {
		return d.sendSingly(fd, headers)
	}
	n, err := sendmmsg(fd, headers)
	if !IsDenial(err) || !d.Confirm(CallSendmmsg, err) {
		return n, err
	}
	return d.sendSingly(fd, headers)
}

// sendSingly does what Send does, with one call for each message.
func (d *Denials) sendSingly(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
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

func (d *Denials) sendOne(fd int32, h *Mmsghdr) syscall.Errno {
	if !d.Has(CallSendmsg) {
		err := sendmsg(fd, h)
		if !IsDenial(err) || !d.Confirm(CallSendmsg, err) {
			return err
		}
	}
	return sendWhole(fd, h)
}

// sendWhole sends a message with sendto(2) and ignores its source address. sendWhole returns EINVAL, like a kernel
// without support, if the message has several pieces, a segment size, or hops.
func sendWhole(fd int32, h *Mmsghdr) syscall.Errno {
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

// PutSegment writes the control message that makes the kernel cut a message into segments, and returns its size.
func PutSegment(oob []byte, segment int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(segment))
	return unix.CmsgSpace(2)
}

// isToBeCut reports whether the last control message of h makes the kernel cut the message into segments.
func isToBeCut(h *Mmsghdr) bool {
	space := unix.CmsgSpace(2)
	if int(h.Controllen) < space {
		return false
	}
	last := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(h.Control), int(h.Controllen)-space))
	return last.Level == unix.SOL_UDP && last.Type == unix.UDP_SEGMENT
}

// hasHops reports whether the first control message of h sets the hops. Messages with hops carry no source address
// before them: only answers have one, and answers carry no hops.
func hasHops(h *Mmsghdr) bool {
	if int(h.Controllen) < hopsRoom {
		return false
	}
	first := (*unix.Cmsghdr)(unsafe.Pointer(h.Control))
	return isHops(first.Level, first.Type)
}

func recvmmsg(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
	for {
		n, err := uintptr(0), faultDenied(CallRecvmmsg)
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

func sendmmsg(fd int32, headers []Mmsghdr) (int, syscall.Errno) {
	for {
		n, err := uintptr(0), faultDenied(CallSendmmsg)
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

func sendmsg(fd int32, h *Mmsghdr) syscall.Errno {
	for {
		err := faultDenied(CallSendmsg)
		if err == 0 {
			_, _, err = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h.Msghdr)),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if err != unix.EINTR {
			return err
		}
	}
}
