//go:build !linux && !darwin && !freebsd

package admin

import (
	"errors"
	"net"
)

func peerUser(net.Conn) (peer, self uint32, err error) { return 0, 0, errors.ErrUnsupported }

func ownersOf(string) (folder, parent owner, err error) {
	return owner{}, owner{}, errors.ErrUnsupported
}
