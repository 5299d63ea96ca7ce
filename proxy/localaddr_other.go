//go:build !linux

package proxy

import (
	"net"
	"net/netip"
)

const oobSize = 0

// wantLocalAddr does nothing here: answers of a wildcard listener leave from the address that the system chooses.
func wantLocalAddr(*net.UDPConn, netip.Addr) error { return nil }

func localAddr([]byte) netip.Addr { return netip.Addr{} }

func sourceControl(netip.Addr) []byte { return nil }
