//go:build faults

package sys

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// With the build tag faults, the loops' system calls misbehave at random in ways that the kernel permits but rarely
// shows. Reads and writes are short or return EAGAIN without need, accept fails, and pipes cannot be opened. Epoll
// reports few events at a time, in any order, and some false ones. Calls that a signal may interrupt (signal(7)) are
// interrupted. All tests must still pass: make test also runs them with this tag.
//
// An operation that fails at random works the next time. A call is denied for good only where a test asks for it, see
// faultDenied.
//
// Dials fail only where a test asks for it: clients of a service with one endpoint would notice the failure.

// Faults reports whether system calls misbehave at random (build tag faults).
const Faults = true

// watchedFDs holds what epoll was asked to report for each descriptor. A fault uses it to make the edge-triggered epoll
// report again what the fault hid.
var watchedFDs sync.Map // maps a descriptor (int32) to its watchedFD

type watchedFD struct {
	epfd  int
	event unix.EpollEvent
}

func faultWatched(epfd int, fd int32, e *unix.EpollEvent) { watchedFDs.Store(fd, watchedFD{epfd, *e}) }

// faultIO returns how many of n bytes a call on fd may move, or the error that the call returns.
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

// faultMove does the same as faultIO for a call that is repeated when a signal interrupts it. It never shortens a
// datagram, which would make another datagram of it.
func faultMove(fd int32, n int) (int, syscall.Errno) {
	if rand.IntN(10) == 0 {
		return 0, unix.EINTR
	}
	if v, ok := watchedFDs.Load(fd); !ok || v.(watchedFD).event.Events&unix.EPOLLET == 0 {
		return n, 0
	}
	return faultIO(fd, n)
}

// FaultRoom returns the free space of a socket, at random replaced by zero or by a larger number.
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

// A denial makes a call fail for good after a number of successful uses.
type denial struct {
	error atomic.Uintptr // error that the call returns; zero if the call is not denied
	left  atomic.Int64   // number of uses that still succeed
	hits  atomic.Int64   // number of uses that were denied
}

// denied holds the denials that tests ask for.
var denied [NumCalls]denial

// Deny makes a call fail with err until Permit. The first after uses still succeed.
func Deny(c Call, err syscall.Errno, after int64) {
	d := &denied[c]
	d.left.Store(after)
	d.hits.Store(0)
	d.error.Store(uintptr(err))
}

// DenyAgain makes a denied call succeed another after times.
func DenyAgain(c Call, after int64) { denied[c].left.Store(after) }

// Permit ends the denial of a call.
func Permit(c Call) { denied[c].error.Store(0) }

// DenialsOf returns how often a call was denied since the last Deny.
func DenialsOf(c Call) int64 { return denied[c].hits.Load() }

// faultDenied returns the error of a denied call, or zero.
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

// dialFaults is the percentage of dials that fail. dialsFaulted counts the dials that have failed.
var dialFaults, dialsFaulted atomic.Int64

// FailDials makes the given percentage of dials fail, at once or later, and restarts their count.
func FailDials(percent int64) {
	dialsFaulted.Store(0)
	dialFaults.Store(percent)
}

// FailedDials returns how many dials have failed since FailDials.
func FailedDials() int64 { return dialsFaulted.Load() }

// doomed holds the dials that will fail later: descriptor to error.
var doomed sync.Map // maps a descriptor (int32) to its syscall.Errno

// faultConnect replaces the result of a connect at random.
func faultConnect(fd int32, err syscall.Errno) syscall.Errno {
	if err != unix.EINPROGRESS {
		return err
	}
	doomed.Delete(fd) // the descriptor may have belonged to a doomed dial that ended otherwise
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

// IsDoomed reports whether the dial of fd will fail.
func IsDoomed(fd int32) bool {
	_, ok := doomed.Load(fd)
	return ok
}

// faultError returns the error of a doomed dial once, then zero.
func faultError(fd int32) syscall.Errno {
	if err, ok := doomed.LoadAndDelete(fd); ok {
		dialsFaulted.Add(1)
		return err.(syscall.Errno)
	}
	return 0
}

// faultPoll returns the part of events that epoll may fill, or an error that replaces the wait.
func faultPoll(events []unix.EpollEvent) ([]unix.EpollEvent, syscall.Errno) {
	switch rand.IntN(8) {
	case 0:
		return events, unix.EINTR
	case 1, 2:
		return events[:1+rand.IntN(4)], 0
	}
	return events, 0
}

// FaultHops returns an error for a datagram whose hops the kernel refuses as a control message, at random or if denied.
func FaultHops() syscall.Errno {
	if rand.IntN(20) == 0 {
		return unix.EPERM // one EPERM does not mean that the call is denied for good
	}
	return faultDenied(CallHopsMessage)
}

// FaultPipe reports whether opening a pipe fails this time.
func FaultPipe() bool { return rand.IntN(8) == 0 }
