package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bulkBuffer is how much is read or written at a time where there is much.
const bulkBuffer = 256 << 10

// A loop generates a load: one thread that waits for the sockets of its slots and lets each slot go on. A load is a
// pool of work, a number of units, from which the slots help themselves.
type loop struct {
	ep    int
	slots []slot
	buf   []byte // shared by the slots, each of which uses it only while it goes on

	work    int // units that nobody has taken
	done    int // units that were done
	errors  int // units that failed
	active  int // slots that have not finished
	lastErr error
	latency histogram
	kept    []int // descriptors to be closed at the end

	rate    int        // units to be started a second; zero: as fast as it goes
	waiting []*newSlot // for their turn, where there is a rate
	started int        // units that had their turn
}

// A slot is one client at a time of a load.
type slot interface {
	// begin starts the first unit, or finishes.
	begin(l *loop, id int)
	// ready goes on after events of the slot's descriptor.
	ready(l *loop, events uint32)
	// tick is called every tickInterval, to give up what had no answer.
	tick(l *loop, now time.Time)
}

const tickInterval = 100 * time.Millisecond

// answerTimeout is when a request counts as failed. Nothing here takes longer than that unless it was lost.
const answerTimeout = 2 * time.Second

func newLoop(work int) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{ep: ep, work: work, buf: make([]byte, bulkBuffer)}, nil
}

// close closes all sockets.
func (l *loop) close() {
	for _, fd := range l.kept {
		unix.Close(fd)
	}
	unix.Close(l.ep)
}

// take takes a unit of work from the pool, if there is one.
func (l *loop) take() bool {
	if l.work == 0 {
		return false
	}
	l.work--
	return true
}

// success counts a unit that began at the given time.
func (l *loop) success(began time.Time) {
	l.done++
	l.latency.record(time.Since(began))
}

func (l *loop) failure(err error) {
	l.errors++
	l.lastErr = err
}

// finish says that a slot has nothing more to do.
func (l *loop) finish() { l.active-- }

func (l *loop) watch(fd, id int, events uint32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// forget is for a descriptor that broke: its events would come again and again.
// forget stops watching fd. An error would mean that it was not watched.
func (l *loop) forget(fd int) { _ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, fd, nil) }

func (l *loop) rewatch(fd, id int, events uint32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// run runs until all slots have finished, which has to be before limit.
func (l *loop) run(slots []slot, limit time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // a thread that ended would take all children along (PR_SET_PDEATHSIG)
	l.slots, l.active = slots, len(slots)
	for id, s := range slots {
		s.begin(l, id)
	}
	began := time.Now()
	ticked := began
	events := make([]unix.EpollEvent, 256)
	for l.active > 0 {
		n, err := unix.EpollWait(l.ep, events, l.release(time.Since(began)))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			l.slots[e.Fd].ready(l, e.Events)
		}
		now := time.Now()
		if now.Sub(ticked) < tickInterval {
			continue
		}
		ticked = now
		if now.Sub(began) > limit {
			return fmt.Errorf("%d of %d units after %v, the last error: %w",
				l.done, l.done+l.errors+l.work+l.active, limit, errOr(l.lastErr))
		}
		for _, s := range l.slots {
			s.tick(l, now)
		}
	}
	return nil
}

// release starts the units that are due after so much time, and returns for how many milliseconds the loop may wait.
func (l *loop) release(elapsed time.Duration) int {
	if l.rate == 0 {
		return int(tickInterval.Milliseconds())
	}
	for due := int(elapsed.Seconds() * float64(l.rate)); l.started < due && len(l.waiting) > 0; l.started++ {
		last := len(l.waiting) - 1
		s := l.waiting[last]
		l.waiting = l.waiting[:last]
		s.start(l)
	}
	return 1
}

var errNone = errors.New("none")

func errOr(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// dial opens a socket to addr that does not block. With a source the connection comes from another loopback address
// than the last ones, so that connections that are gone but remembered (TIME_WAIT) do not use up the ports of one.
func dial(kind int, addr netip.AddrPort, source int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil && source > 0 {
		// The port is chosen by connect, which knows what else makes the connection unique.
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + source%sources)}})
		}
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sources is from how many addresses clients come.
const sources = 32

// again tells whether err only means that the socket is not ready.
func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

var errUnanswered = errors.New("no answer")
