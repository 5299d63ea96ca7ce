//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// OOBSize is 0: control messages are only used on Linux.
const OOBSize = 0

// WantLocalConn does nothing: a wildcard listener's answers leave from the address that the operating system chooses.
func WantLocalConn(*net.UDPConn, netip.Addr) error { return nil }

// Local returns an invalid address: the local address is unknown on this system.
func Local([]byte) netip.Addr { return netip.Addr{} }

// SourceControl returns nil: answers leave from the address that the operating system chooses.
func SourceControl(netip.Addr) []byte { return nil }
