package testnet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// AddInterfaces makes a pair of connected interfaces (veth(4)), which are down. Call it in a namespace of the test; see
// Inside.
func AddInterfaces(t testing.TB, name, other string) {
	t.Helper()
	if err := addInterfaces(name, other, nil); err != nil {
		testproc.Cannot(t, "interfaces cannot be made", err)
	}
}

// addInterfaces is AddInterfaces. The other interface is in the namespace ns, or in the caller's if ns is nil.
func addInterfaces(name, other string, ns *os.File) error {
	const peer = 1 // VETH_INFO_PEER
	e, info := netlink.NewAttributeEncoder(), make([]byte, unix.SizeofIfInfomsg)
	e.String(unix.IFLA_IFNAME, name)
	e.Nested(unix.IFLA_LINKINFO, func(e *netlink.AttributeEncoder) error {
		e.String(unix.IFLA_INFO_KIND, "veth")
		e.Nested(unix.IFLA_INFO_DATA, func(e *netlink.AttributeEncoder) error {
			e.Do(peer, func() ([]byte, error) {
				named := netlink.NewAttributeEncoder()
				named.String(unix.IFLA_IFNAME, other)
				if ns != nil {
					named.Uint32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
				}
				b, err := named.Encode()
				return append(slices.Clone(info), b...), err
			})
			return nil
		})
		return nil
	})
	return ask(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, info, e)
}

// AddAddress adds an address with its network to an interface.
func AddAddress(t testing.TB, name string, addr netip.Prefix) {
	t.Helper()
	if err := address(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, name, addr); err != nil {
		t.Fatal(err)
	}
}

// RemoveAddress undoes AddAddress.
func RemoveAddress(t testing.TB, name string, addr netip.Prefix) {
	t.Helper()
	if err := address(unix.RTM_DELADDR, 0, name, addr); err != nil {
		t.Fatal(err)
	}
}

// address adds or removes an interface's address; see struct ifaddrmsg in rtnetlink(7).
func address(kind netlink.HeaderType, flags netlink.HeaderFlags, name string, addr netip.Prefix) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.IFA_LOCAL, addr.Addr().AsSlice())
	e.Bytes(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	request := []byte{familyOf(addr.Addr()), byte(addr.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	return ask(kind, flags, binary.NativeEndian.AppendUint32(request, uint32(i.Index)), e)
}

func familyOf(addr netip.Addr) byte {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ask sends a request to the kernel and waits for the result.
func ask(kind netlink.HeaderType, flags netlink.HeaderFlags, request []byte, e *netlink.AttributeEncoder) error {
	attributes, err := e.Encode()
	if err != nil {
		return err
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	header := netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags}
	_, err = c.Execute(netlink.Message{Header: header, Data: append(request, attributes...)})
	return err
}
