//go:build unix

package regular

import "golang.org/x/sys/unix"

// AtOnce is a set of flags for os.OpenFile. With them, open(2) waits neither for the other end of a FIFO nor for a
// modem. A terminal does not become the controlling terminal.
const AtOnce = unix.O_NONBLOCK | unix.O_NOCTTY

// NoFollow is a flag for os.OpenFile. With it, open(2) fails if the path is a symbolic link.
const NoFollow = unix.O_NOFOLLOW
