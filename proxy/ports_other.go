//go:build !linux

package proxy

// ephemeralPorts returns a usual number of local ports for outgoing sockets. Each of these systems has its own way to
// ask for it.
func ephemeralPorts() (lowest uint16, n int64) { return 0, defaultPorts }
