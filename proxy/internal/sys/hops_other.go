//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// WantHopsConn does nothing here: how many hops a datagram had left is not known.
func WantHopsConn(*net.UDPConn, netip.Addr) error { return nil }

func Hops([]byte) uint8 { return 0 }

func SetHopsConn(*net.UDPConn, bool, uint8) {}
