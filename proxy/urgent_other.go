//go:build !unix

package proxy

// urgentInline does nothing here.
func urgentInline(streamConn) {}
