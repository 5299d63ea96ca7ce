//go:build faults

package sys

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// With the build tag faults the loops' system calls misbehave at random, as the kernel may and seldom does: reads
// and writes are short or say EAGAIN though they need not, accept fails, there are no pipes, epoll tells little at a
// time, in any order, and also what is not so, and whatever may be interrupted by a signal (signal(7)) is. The tests
// must pass all the same: make test runs them so, too.
//
// What fails so works the next time. A call that the system denies for good fails only where a test asks for it, see
// faultDenied.
//
// Dials fail only where a test asks for it: where there is one endpoint, its clients must notice.

// Faults reports whether system calls misbehave: the build tag faults is on.
const Faults = true

// watchedFDs is what epoll was asked for each descriptor, to have it tell again of what a fault hid: edge-triggered,
// it would not.
var watchedFDs sync.Map // of int32 to watch

type watchedFD struct {
	epfd  int
	event unix.EpollEvent
}

func faultWatched(epfd int, fd int32, e *unix.EpollEvent) { watchedFDs.Store(fd, watchedFD{epfd, *e}) }

// faultIO returns how many of n bytes a call on fd may move, or the error that it gets.
func faultIO(fd int32, n int) (int, syscall.Errno) {
	dice := rand.IntN(10)
	if dice > 4 || n == 0 {
		return n, 0
	}
	v, ok := watchedFDs.Load(fd)
	if !ok {
		return n, 0
	}
	w := v.(watchedFD)
	_ = epollControl(w.epfd, unix.EPOLL_CTL_MOD, fd, &w.event)
	if dice > 2 {
		return 0, unix.EAGAIN
	}
	return 1 + rand.IntN(n), 0
}

// faultMove is faultIO for a call that is made again when a signal interrupts it. A datagram is not cut: that would
// be another one.
func faultMove(fd int32, n int) (int, syscall.Errno) {
	if rand.IntN(10) == 0 {
		return 0, unix.EINTR
	}
	if v, ok := watchedFDs.Load(fd); !ok || v.(watchedFD).event.Events&unix.EPOLLET == 0 {
		return n, 0
	}
	return faultIO(fd, n)
}

// FaultRoom is the room in a socket, or that there is none, or more than there is.
func FaultRoom(fd int32, room int) int {
	const most = 1 << 20
	switch n, err := faultIO(fd, most); {
	case err != 0:
		return 0
	case n < most:
		return n + room
	}
	return room
}

// A denial has a call denied for good, once it has been made some times.
type denial struct {
	error atomic.Uintptr // of the call; zero: it is not denied
	left  atomic.Int64   // how often it is made before it is denied
	hits  atomic.Int64   // how often it was denied
}

// denied are the denials that tests ask for.
var denied [NumCalls]denial

// Deny has a call fail with err once it has been made after times, until Permit.
func Deny(c Call, err syscall.Errno, after int64) {
	d := &denied[c]
	d.left.Store(after)
	d.hits.Store(0)
	d.error.Store(uintptr(err))
}

// DenyAgain has a call that Deny denies work after times more.
func DenyAgain(c Call, after int64) { denied[c].left.Store(after) }

// Permit ends what Deny began.
func Permit(c Call) { denied[c].error.Store(0) }

// DenialsOf returns how often a call was denied since Deny.
func DenialsOf(c Call) int64 { return denied[c].hits.Load() }

// faultDenied is the error of a call that is denied for good, or zero.
func faultDenied(c Call) syscall.Errno {
	d := &denied[c]
	err := d.error.Load()
	if err == 0 || d.left.Add(-1) >= 0 {
		return 0
	}
	d.hits.Add(1)
	return syscall.Errno(err)
}

func faultAccept() syscall.Errno {
	switch rand.IntN(20) {
	case 0:
		return unix.ECONNABORTED
	case 1:
		return unix.EMFILE
	case 2:
		return unix.EAGAIN
	case 3, 4:
		return unix.EINTR
	}
	return 0
}

// dialFaults is how many dials of a hundred fail, and dialsFaulted how many have.
var dialFaults, dialsFaulted atomic.Int64

// FailDials has so many dials of a hundred fail, at once or later, and begins to count them.
func FailDials(percent int64) {
	dialsFaulted.Store(0)
	dialFaults.Store(percent)
}

// FailedDials returns how many dials have failed since FailDials.
func FailedDials() int64 { return dialsFaulted.Load() }

// doomed are the dials that fail later: the error of each descriptor.
var doomed sync.Map // of int32 to syscall.Errno

// faultConnect turns the result of a connect into another one.
func faultConnect(fd int32, err syscall.Errno) syscall.Errno {
	if err != unix.EINPROGRESS {
		return err
	}
	doomed.Delete(fd) // left by a dial that ended otherwise
	if rand.Int64N(100) < dialFaults.Load() {
		now := []syscall.Errno{unix.EADDRNOTAVAIL, unix.ENETUNREACH, unix.ECONNREFUSED}
		late := []syscall.Errno{unix.ECONNREFUSED, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ECONNRESET}
		if n := rand.IntN(2); n == 0 {
			dialsFaulted.Add(1)
			return now[rand.IntN(len(now))]
		}
		doomed.Store(fd, late[rand.IntN(len(late))])
	}
	if rand.IntN(3) == 0 {
		return unix.EINTR
	}
	return err
}

// IsDoomed reports whether the dial of fd is to fail.
func IsDoomed(fd int32) bool {
	_, ok := doomed.Load(fd)
	return ok
}

// faultError is the error of a doomed dial, told once.
func faultError(fd int32) syscall.Errno {
	if err, ok := doomed.LoadAndDelete(fd); ok {
		dialsFaulted.Add(1)
		return err.(syscall.Errno)
	}
	return 0
}

// faultPoll returns the room for events that epoll sees, or an error without waiting.
func faultPoll(events []unix.EpollEvent) ([]unix.EpollEvent, syscall.Errno) {
	switch rand.IntN(8) {
	case 0:
		return events, unix.EINTR
	case 1, 2:
		return events[:1+rand.IntN(4)], 0
	}
	return events, 0
}

// FaultHops is the error of a datagram whose hops the kernel does not take as a control message.
func FaultHops() syscall.Errno {
	if rand.IntN(20) == 0 {
		return unix.EPERM // which does not say that they are denied for good
	}
	return faultDenied(CallHopsMessage)
}

// FaultPipe reports whether there is no pipe to be had this time.
func FaultPipe() bool { return rand.IntN(8) == 0 }
