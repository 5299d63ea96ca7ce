//go:build !linux

package proxy

// ephemeralPorts returns what is usual: other systems differ, and tell in other ways.
func ephemeralPorts() (lowest uint16, n int64) { return 0, defaultPorts }
