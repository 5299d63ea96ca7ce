//go:build amd64 || arm64

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A diagCutter destroys sockets by sock_diag(7), one by one. The Path lists them with what they store, and the kernel
// compares their cookies, so it destroys the same ones as an iterCutter.
type diagCutter struct{ *Path }

func (c *diagCutter) run() (destroyed int, err error) {
	wanted, err := c.listingLocked()
	if err != nil {
		return 0, err
	}
	all, err := wanted.read(context.Background())
	if err == nil {
		err = c.readStoredUDPLocked(all)
	}
	if err != nil {
		return 0, err
	}
	d, err := openSockDiag()
	if err != nil {
		return 0, err
	}
	defer d.close()
	for _, s := range all {
		if !c.isMarked(s) {
			continue
		}
		done, err := d.destroy(s.protocol, &s.diagMessage)
		if err != nil {
			return destroyed, err
		}
		if done {
			destroyed++
		}
	}
	return destroyed, nil
}

// isMarked reports whether the socket is connected to an endpoint that is marked.
func (c *diagCutter) isMarked(s *diagSocket) bool {
	if !s.isSent() {
		return false
	}
	_, ok := c.ownerLocked(s.stored.Endpoint, s.stored.Generation)
	return ok && atomic.LoadUint32(&c.table.endpoints[s.stored.Endpoint].Cut) != 0
}

func (c *diagCutter) close() {}

// probeDestroy destroys a connection of its own, and returns an error if the kernel does not.
func probeDestroy() error {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	conn, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	d, err := openSockDiag()
	if err != nil {
		return err
	}
	defer d.close()
	m := diagMessage{Family: unix.AF_INET, State: unix.BPF_TCP_ESTABLISHED, ID: diagID{Cookie: anyCookie}}
	m.ID.Source, m.ID.SourcePort = diagAddress(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	m.ID.Destination, m.ID.DestinationPort = diagAddress(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	switch done, err := d.destroy(unix.IPPROTO_TCP, &m); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("sock_diag: CONFIG_INET_DIAG_DESTROY is missing: %w", err)
	case err != nil:
		return fmt.Errorf("sock_diag: %w", err)
	case !done:
		return errors.New("sock_diag does not find a connection of this process")
	}
	return nil
}

// anyCookie stands for every cookie (INET_DIAG_NOCOOKIE).
var anyCookie = [2]uint32{^uint32(0), ^uint32(0)}

// diagAddress returns an IPv4 address and a port as sock_diag(7) has them.
func diagAddress(a netip.AddrPort) (ip [16]byte, port [2]byte) {
	b := a.Addr().As4()
	copy(ip[:], b[:])
	return ip, [2]byte{byte(a.Port() >> 8), byte(a.Port())}
}
