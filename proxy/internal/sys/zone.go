package sys

import (
	"net"
	"strconv"
)

// InterfaceOf returns the index of the interface that is the zone of an IPv6 address: its name, or its index in digits.
// It returns 0 if this host has no such interface.
func InterfaceOf(zone string) int {
	if i, err := net.InterfaceByName(zone); err == nil {
		return i.Index
	}
	if n, err := strconv.Atoi(zone); err == nil && n > 0 {
		if i, err := net.InterfaceByIndex(n); err == nil {
			return i.Index
		}
	}
	return 0
}
