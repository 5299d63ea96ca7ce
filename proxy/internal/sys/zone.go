package sys

import (
	"net"
	"strconv"
)

// InterfaceOf returns the index of the interface that the zone of an IPv6 address means. The zone is the interface's
// name or its index in digits. InterfaceOf returns 0 if this host has no such interface.
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
