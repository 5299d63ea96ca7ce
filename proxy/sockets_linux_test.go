package proxy

import (
	"net/netip"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// eachSocket calls f for each socket of this process whose addresses match. That of the peer is invalid if the socket
// is not connected. Nothing else may open or close descriptors meanwhile. It returns how many sockets match.
func eachSocket(t testing.TB, matches func(local, peer netip.AddrPort) bool, f func(fd int)) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		local, err := unix.Getsockname(fd)
		if err != nil { // not a socket
			continue
		}
		peer, _ := unix.Getpeername(fd)
		if matches(addrPort(local), addrPort(peer)) {
			n++
			f(fd)
		}
	}
	return n
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// listening matches the sockets of a listener at addr.
func listening(addr netip.AddrPort) func(local, peer netip.AddrPort) bool {
	return func(local, peer netip.AddrPort) bool { return local == addr && !peer.IsValid() }
}

// acceptedAt matches the connections that a listener at addr has accepted.
func acceptedAt(addr netip.AddrPort) func(local, peer netip.AddrPort) bool {
	return func(local, peer netip.AddrPort) bool { return local == addr && peer.IsValid() }
}

// connectedTo matches the sockets that are connected to addr.
func connectedTo(addr netip.AddrPort) func(local, peer netip.AddrPort) bool {
	return func(_, peer netip.AddrPort) bool { return peer == addr }
}
