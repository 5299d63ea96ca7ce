//go:build unix

package regular

import "golang.org/x/sys/unix"

// AtOnce is for the flags of os.OpenFile. It has open(2) not wait for the other end of a FIFO or for a modem, and not
// make a terminal the one that controls this process.
const AtOnce = unix.O_NONBLOCK | unix.O_NOCTTY

// NoFollow is for the flags of os.OpenFile. It has open(2) fail if the path is a symbolic link.
const NoFollow = unix.O_NOFOLLOW
