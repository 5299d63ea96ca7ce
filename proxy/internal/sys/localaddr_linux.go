package sys

import (
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OOBSize is the buffer size in bytes for the control messages that carry a datagram's local address and the hops that
// it had left.
var OOBSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + unix.CmsgSpace(unix.SizeofInet4Pktinfo) + hopsRoom

// WantLocalConn makes the kernel report for each datagram which local address it was sent to: IP_PKTINFO of ip(7),
// IPV6_RECVPKTINFO of ipv6(7). A dual-stack socket gets both options. For a datagram that was broadcast over IPv4, only
// IP_PKTINFO provides an address to answer from.
func WantLocalConn(c *net.UDPConn, wildcard netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err = raw.Control(func(fd uintptr) { failed = WantLocal(int(fd), wildcard) }); err != nil {
		return err
	}
	return failed
}

// WantLocal does the same as WantLocalConn for a descriptor.
func WantLocal(fd int, wildcard netip.Addr) error {
	if err := faultDenied(CallLocalAddr); err != 0 {
		return os.NewSyscallError("setsockopt", err)
	}
	if wildcard.Is4() {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	}
	// Kernels before 5.4 may refuse the option for an IPv6 socket.
	SetOption(int32(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// Local returns the local address that a datagram was sent to, from its control messages. For an IPv4 broadcast Local
// returns the host's own address. Local returns an invalid address if there is none to answer from.
func Local(oob []byte) (local netip.Addr) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if a := LocalIn(h.Level, h.Type, data); a.IsValid() {
			local = a // if there are two addresses, that of IP_PKTINFO comes last and counts
		}
		oob = rest
	}
	return local
}

// IsToAllIn reports whether a control message says that a datagram was broadcast or multicast. The kernel delivers such
// a datagram to all sockets bound to its port.
func IsToAllIn(level, kind int32, data []byte) bool {
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		return info.Addr != info.Spec_dst
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return data[0] == 0xff // ff00::/8, RFC 4291
	}
	return false
}

// LocalIn returns the local address that one control message carries; invalid if it carries none.
func LocalIn(level, kind int32, data []byte) netip.Addr {
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		return netip.AddrFrom4(info.Spec_dst)
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		if a := netip.AddrFrom16(info.Addr); !a.IsMulticast() {
			return a
		}
	}
	return netip.Addr{}
}

// A Source is a local address as 16 bytes. All bytes are zero if the address is unknown.
type Source [16]byte

// PutSource writes the control message that makes a datagram leave from the given local address, and returns its size.
func PutSource(oob []byte, family uint16, from Source) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	data := unsafe.Pointer(&oob[unix.CmsgLen(0)])
	if family == unix.AF_INET {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Spec_dst: [4]byte(from[12:])}
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Addr: from}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// SourceControl returns the control message that sends a datagram from local. The kernel chooses the interface.
func SourceControl(local netip.Addr) []byte {
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
