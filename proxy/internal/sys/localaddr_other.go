//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

const OOBSize = 0

// WantLocalConn does nothing here: answers of a wildcard listener leave from the address that the system chooses.
func WantLocalConn(*net.UDPConn, netip.Addr) error { return nil }

func Local([]byte) netip.Addr { return netip.Addr{} }

func SourceControl(netip.Addr) []byte { return nil }
