//go:build !linux

package sys

import (
	"net"
	"net/netip"
)

// WantHopsConn does nothing on this system: the hops that a datagram had left are unknown.
func WantHopsConn(*net.UDPConn, netip.Addr) error { return nil }

// Hops returns 0: the number is unknown on this system.
func Hops([]byte) uint8 { return 0 }

// SetHopsConn does nothing on this system: datagrams keep the system's default hops.
func SetHopsConn(*net.UDPConn, bool, uint8) {}
