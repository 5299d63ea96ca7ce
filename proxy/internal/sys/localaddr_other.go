//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// OOBSize is 0: this system is not asked for control messages.
const OOBSize = 0

// WantLocalConn does nothing: on this system, the system chooses the source address of a wildcard listener's answers.
func WantLocalConn(*net.UDPConn, netip.Addr) error { return nil }

// Local returns an invalid address: the local address is unknown on this system.
func Local([]byte) netip.Addr { return netip.Addr{} }

// SourceControl returns nil: on this system, the system chooses the source address of answers.
func SourceControl(netip.Addr) []byte { return nil }
