//go:build !unix

package proxy

import (
	"net/netip"
	"testing"
)

func stuckPort(t *testing.T) netip.AddrPort {
	t.Skip("the queue of a listener cannot be filled here")
	panic("unreachable")
}
