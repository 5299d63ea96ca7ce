package proxy

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oobSize has room for the control message that tells the address that a client used.
var oobSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo)

// wantLocalAddr makes the kernel tell with each datagram which of the host's addresses it was sent to: IP_PKTINFO of ip(7), IPV6_RECVPKTINFO
// of ipv6(7), which a dual-stack socket uses for IPv4 too.
func wantLocalAddr(c *net.UDPConn, wildcard netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if wildcard.Is4() {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// localAddr is the address that a datagram was sent to, by its control message. For IPv4 that is the host's own address even if the
// datagram was broadcast. Invalid if there is none to answer from.
func localAddr(oob []byte) netip.Addr {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			return netip.AddrFrom4(info.Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			if a := netip.AddrFrom16(info.Addr); !a.IsMulticast() {
				return a
			}
			return netip.Addr{}
		}
		oob = rest
	}
	return netip.Addr{}
}

// sourceControl is the control message that makes a datagram leave from local. The interface is the kernel's choice.
func sourceControl(local netip.Addr) []byte {
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
