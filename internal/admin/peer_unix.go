//go:build linux || darwin || freebsd

package admin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// peerUser returns the user ID of the process that listens at the other end of conn, and the user ID of this process.
func peerUser(conn net.Conn) (peer, self uint32, err error) {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return 0, 0, errors.ErrUnsupported
	}
	c, err := raw.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	if failed := c.Control(func(fd uintptr) { peer, err = credentials(int(fd)) }); failed != nil {
		err = failed
	}
	return peer, uint32(os.Geteuid()), err
}

// ownersOf returns the owner of the folder that contains path, and the owner of that folder's parent.
func ownersOf(path string) (folder, parent owner, err error) {
	dir := filepath.Dir(path)
	if folder, err = ownerOf(dir); err == nil {
		parent, err = ownerOf(filepath.Dir(dir))
	}
	return folder, parent, err
}

func ownerOf(dir string) (owner, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return owner{}, err
	}
	const othersWrite = 0o022
	return owner{uid: info.Sys().(*syscall.Stat_t).Uid, open: info.Mode()&othersWrite != 0}, nil
}
