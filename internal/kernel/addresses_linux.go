//go:build amd64 || arm64

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// localAddresses keeps the addresses of this host in a map, for listeners at unspecified addresses.
type localAddresses struct {
	inKernel *ebpf.Map
	log      hclog.Logger
	changes  *os.File // a netlink socket that is readable after changes
	known    map[netip.Addr]bool
	running  sync.WaitGroup
}

// followAddresses fills the map, and keeps it up to date until close.
func followAddresses(m *ebpf.Map, log hclog.Logger) (*localAddresses, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	changes := os.NewFile(uintptr(fd), "netlink")
	a := &localAddresses{inKernel: m, log: log, changes: changes, known: map[netip.Addr]bool{}}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	if err == nil {
		err = a.read()
	}
	if err != nil {
		_ = a.changes.Close()
		return nil, err
	}
	a.running.Go(a.follow)
	return a, nil
}

// follow reads all addresses after each change. What a message says does not matter, so none can be missed.
func (a *localAddresses) follow() {
	b := make([]byte, 16<<10)
	for {
		if _, err := a.changes.Read(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err := a.read(); err != nil {
			a.log.Warn("cannot read the addresses of this host; clients of new ones stay on the proxy", "error", err)
		}
	}
}

func (a *localAddresses) read() error {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	now := make(map[netip.Addr]bool, len(all))
	for _, each := range all {
		if prefix, err := netip.ParsePrefix(each.String()); err == nil && !prefix.Addr().IsLoopback() {
			now[prefix.Addr()] = true
		}
	}
	for addr := range a.known {
		if !now[addr] {
			if err := a.inKernel.Delete(addressOf(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
			delete(a.known, addr)
		}
	}
	for addr := range now {
		if !a.known[addr] {
			if err := a.inKernel.Put(addressOf(addr), uint32(1)); err != nil {
				return err
			}
			a.known[addr] = true
		}
	}
	return nil
}

func (a *localAddresses) close() {
	_ = a.changes.Close()
	a.running.Wait()
}
