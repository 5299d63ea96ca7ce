package proxy

import (
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oobSize has room for the control messages that tell the address that a client used, and how many hops its datagram
// had left.
var oobSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + hopsRoom

// wantLocalAddr makes the kernel tell with each datagram which of the host's addresses it was sent to: IP_PKTINFO of
// ip(7), IPV6_RECVPKTINFO of ipv6(7), which a dual-stack socket uses for IPv4 too.
func wantLocalAddr(c *net.UDPConn, wildcard netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err = raw.Control(func(fd uintptr) { failed = wantLocalAddrFD(int(fd), wildcard) }); err != nil {
		return err
	}
	return failed
}

func wantLocalAddrFD(fd int, wildcard netip.Addr) error {
	if err := faultDenied(callLocalAddr); err != 0 {
		return os.NewSyscallError("setsockopt", err)
	}
	if wildcard.Is4() {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// localAddr is the address that a datagram was sent to, by its control message. For IPv4 that is the host's own
// address even if the datagram was broadcast. Invalid if there is none to answer from.
func localAddr(oob []byte) netip.Addr {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if a := localOf(h.Level, h.Type, data); a.IsValid() {
			return a
		}
		oob = rest
	}
	return netip.Addr{}
}

// localOf is what one control message says of that; invalid if it says nothing.
func localOf(level, kind int32, data []byte) netip.Addr {
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

// A localSource is an address of this host, by its 16 bytes; all zero if it is not known.
type localSource [16]byte

// putSource writes the control message that makes a datagram leave from the given address of this host, and returns
// its size.
func putSource(oob []byte, family uint16, from localSource) int {
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

// sourceControl is the control message that makes a datagram leave from local. The interface is the kernel's choice.
func sourceControl(local netip.Addr) []byte {
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
