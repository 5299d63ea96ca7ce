package sys

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The network sees each forwarded datagram as a new one. A datagram that comes back to Lictor, through another host or
// another Lictor, would therefore circle for ever. To prevent that, Lictor forwards a datagram with the hops that it
// had left (IPv4 time to live, IPv6 hop limit), less one. All datagrams of a session get the hops of its first
// datagram. That is enough: in a circle the client is another socket on each pass, so each pass begins a new session.
//
// Setting the hops on the session's socket costs a system call, a tenth of the cost of a session with one datagram.
// Therefore the first datagram carries its hops as a control message, and the socket gets the hops before the second
// datagram. If the system refuses the control message, the socket gets the hops at once.

// WantHops makes the kernel report for each datagram how many hops it had left. If the system denies that, the hops
// stay unknown.
func WantHops(fd int32, listen netip.Addr) {
	if faultDenied(CallHopsLeft) != 0 {
		return
	}
	if listen.Is4() || listen.IsUnspecified() { // an IPv6 wildcard socket receives IPv4 datagrams too
		SetOption(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
	}
	if listen.Is6() {
		SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	}
}

// isHops reports whether a control message carries hops.
func isHops(level, kind int32) bool {
	return level == unix.IPPROTO_IP && kind == unix.IP_TTL || level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT
}

// HopsIn returns the hops that a control message carries, and whether it carries any.
func HopsIn(level, kind int32, data []byte) (hops uint8, is bool) {
	if !isHops(level, kind) || len(data) < 4 {
		return 0, false
	}
	return uint8(binary.NativeEndian.Uint32(data)), true
}

// hopsRoom is the size in bytes of a control message that carries hops.
var hopsRoom = unix.CmsgSpace(4)

// PutHops writes the control message that gives a datagram the number of hops, and returns its size. six says whether
// the socket is an IPv6 socket.
func PutHops(oob []byte, six bool, hops uint8) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_IP, unix.IP_TTL
	if six {
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
	}
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(oob[unix.CmsgLen(0):], uint32(hops))
	return hopsRoom
}

// SetHops sets the hops of all datagrams that a socket sends. six says whether the socket is an IPv6 socket.
func SetHops(fd int32, six bool, hops uint8) {
	if faultDenied(CallHops) != 0 {
		return
	}
	if six {
		SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, int(hops))
	} else {
		SetOption(fd, unix.IPPROTO_IP, unix.IP_TTL, int(hops))
	}
}

// WantHopsConn calls WantHops for a socket of package net.
func WantHopsConn(c *net.UDPConn, listen netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { WantHops(int32(fd), listen) })
}

// SetHopsConn calls SetHops for a socket of package net. If that fails, datagrams keep the system's default hops.
func SetHopsConn(c *net.UDPConn, six bool, hops uint8) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { SetHops(int32(fd), six, hops) })
	}
}

// Hops finds the hops that a datagram had left in its control messages. Hops returns 0 if the control messages do not
// have them.
func Hops(oob []byte) uint8 {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if hops, is := HopsIn(h.Level, h.Type, data); is {
			return hops
		}
		oob = rest
	}
	return 0
}
