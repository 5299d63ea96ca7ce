//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// OOBSize is 0: no control messages are asked for.
const OOBSize = 0

// WantLocalConn does nothing here: answers of a wildcard listener leave from the address that the system chooses.
func WantLocalConn(*net.UDPConn, netip.Addr) error { return nil }

// Local returns no address: it is not known.
func Local([]byte) netip.Addr { return netip.Addr{} }

// SourceControl returns nil: answers leave from the address that the system chooses.
func SourceControl(netip.Addr) []byte { return nil }
