package sys

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A datagram that comes back to Lictor, by way of another host or another Lictor, would circle for ever, because each
// time it is forwarded it is a new one to the network. So it goes on with the hops that the client's had left (the time
// to live of IPv4, the hop limit of IPv6), less one. A session's datagrams all have those of its first: in a circle
// every pass begins a session, since the client is another socket each time.
//
// Setting them on the session's socket costs a system call, a tenth of what a session of one datagram costs. So the
// first datagram takes them along as a control message, and the socket gets them when there is a second one. Where the
// system takes no such message, the socket gets them at once.

// WantHops makes the kernel tell with each datagram how many hops it had left. Where the system does not let it,
// nothing is known of that.
func WantHops(fd int32, listen netip.Addr) {
	if faultDenied(CallHopsLeft) != 0 {
		return
	}
	if listen.Is4() || listen.IsUnspecified() { // the IPv6 wildcard takes IPv4 too
		SetOption(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
	}
	if listen.Is6() {
		SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	}
}

// isHops reports whether a control message is about hops.
func isHops(level, kind int32) bool {
	return level == unix.IPPROTO_IP && kind == unix.IP_TTL || level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT
}

// HopsIn returns what a control message says of that, and whether it says something.
func HopsIn(level, kind int32, data []byte) (hops uint8, is bool) {
	if !isHops(level, kind) || len(data) < 4 {
		return 0, false
	}
	return uint8(binary.NativeEndian.Uint32(data)), true
}

// hopsRoom is the size of a control message about hops.
var hopsRoom = unix.CmsgSpace(4)

// PutHops writes the control message that gives a datagram so many hops, over a socket of IPv6 or IPv4, and returns its
// size.
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

// SetHops gives all datagrams that a socket of IPv6 or IPv4 sends so many hops.
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

// WantHopsConn is WantHops for a socket of package net.
func WantHopsConn(c *net.UDPConn, listen netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { WantHops(int32(fd), listen) })
}

// SetHopsConn is SetHops for a socket of package net. That it fails is no matter: then it has as many as the system
// gives it.
func SetHopsConn(c *net.UDPConn, six bool, hops uint8) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { SetHops(int32(fd), six, hops) })
	}
}

// Hops returns how many hops a datagram had left, by its control messages; 0 if they do not say.
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
