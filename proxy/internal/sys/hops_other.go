//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// WantHopsConn does nothing here: how many hops a datagram had left is not known.
func WantHopsConn(*net.UDPConn, netip.Addr) error { return nil }

// Hops returns 0: it is not known.
func Hops([]byte) uint8 { return 0 }

// SetHopsConn does nothing here: datagrams have as many hops as the system gives them.
func SetHopsConn(*net.UDPConn, bool, uint8) {}
