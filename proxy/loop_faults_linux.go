//go:build faults

package proxy

import (
	"math/rand/v2"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// With the build tag faults the loops' system calls misbehave at random, as the kernel may and seldom does: reads and writes are short,
// say EAGAIN though they need not, and accept fails. The tests must pass all the same: make test runs them so, too.

const faults = true

// watched is what epoll was asked for each descriptor, to have it tell again of what a fault hid: edge-triggered, it would not.
var watched sync.Map // of int32 to watch

type watch struct {
	epfd  int
	event unix.EpollEvent
}

func faultWatched(epfd int, fd int32, events uint32, number int32, side int) {
	watched.Store(fd, watch{epfd, unix.EpollEvent{Events: events, Fd: number, Pad: int32(side)}})
}

// faultIO returns how many of n bytes a call on fd may move, or the error that it gets.
func faultIO(fd int32, n int) (int, syscall.Errno) {
	dice := rand.IntN(10)
	if dice > 4 || n == 0 {
		return n, 0
	}
	v, ok := watched.Load(fd)
	if !ok {
		return n, 0
	}
	w := v.(watch)
	_ = epollControl(w.epfd, unix.EPOLL_CTL_MOD, fd, &w.event)
	if dice > 2 {
		return 0, unix.EAGAIN
	}
	return 1 + rand.IntN(n), 0
}

func faultAccept() syscall.Errno {
	switch rand.IntN(20) {
	case 0:
		return unix.ECONNABORTED
	case 1:
		return unix.EMFILE
	case 2:
		return unix.EAGAIN
	}
	return 0
}
