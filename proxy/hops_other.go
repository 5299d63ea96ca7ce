//go:build !linux

package proxy

import (
	"net"
	"net/netip"
)

// wantHopsOf does nothing here: how many hops a datagram had left is not known.
func wantHopsOf(*net.UDPConn, netip.Addr) error { return nil }

func hopsOf([]byte) uint8 { return 0 }

func setHopsOf(*net.UDPConn, bool, uint8) {}
