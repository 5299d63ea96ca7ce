//go:build !linux

package proxy

// ephemeralPorts returns a usual number of local ports for outgoing sockets. Systems other than Linux each have their
// own way to ask for the real number.
func ephemeralPorts() (lowest uint16, n int64) { return 0, defaultPorts }
