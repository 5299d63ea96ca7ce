package proxy

import (
	"fmt"
	"os"
)

// ephemeralPorts returns the lowest local port that the kernel gives to outgoing sockets, and the number of such ports.
func ephemeralPorts() (lowest uint16, n int64) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	var high uint16
	if _, scan := fmt.Sscan(string(b), &lowest, &high); err != nil || scan != nil || high < lowest {
		return 0, defaultPorts
	}
	return lowest, int64(high-lowest) + 1
}
