package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bulkBuffer is the size of one read or write in a bulk transfer, in bytes.
const bulkBuffer = 256 << 10

// A loop generates a load. Its one thread waits for the sockets of all slots and runs each slot that is ready. A load
// is a number of units of work, which the slots take one by one.
type loop struct {
	ep    int
	slots []slot
	buf   []byte // shared by all slots; each uses it only while it runs

	work    int // units not yet taken
	done    int // units done
	errors  int // units failed
	active  int // slots not finished
	lastErr error
	latency histogram
	kept    []int    // descriptors to close at the end
	apart   spending // what bench.apart has used

	rate    int        // units to start per second; zero: as fast as possible
	waiting []*newSlot // slots that wait for their start time, if there is a rate
	started int        // units that have been started
}

// A slot is one client of a load at a time.
type slot interface {
	// begin starts the first unit. Without work it finishes.
	begin(l *loop, id int)
	// ready continues after events on the slot's descriptor.
	ready(l *loop, events uint32)
	// tick is called every tickInterval and gives up requests without an answer.
	tick(l *loop, now time.Time)
}

const tickInterval = 100 * time.Millisecond

// answerTimeout is the time after which a request counts as failed. Only a lost request takes that long.
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

// take takes a unit of work and reports whether there was one.
func (l *loop) take() bool {
	if l.work == 0 {
		return false
	}
	l.work--
	return true
}

// success counts a unit that began at the given time as done.
func (l *loop) success(began time.Time) {
	l.done++
	l.latency.record(time.Since(began))
}

func (l *loop) failure(err error) {
	l.errors++
	l.lastErr = err
}

// finish counts a slot as finished.
func (l *loop) finish() { l.active-- }

func (l *loop) watch(fd, id int, events uint32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// forget stops watching fd. Use it for a broken descriptor, whose events would come again and again. An error would
// mean that fd was not watched, and is ignored.
func (l *loop) forget(fd int) { _ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, fd, nil) }

func (l *loop) rewatch(fd, id int, events uint32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// run runs the slots until all have finished. It returns an error if that takes longer than limit.
func (l *loop) run(slots []slot, limit time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread() // the end of the thread would end all children (PR_SET_PDEATHSIG)
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

// release starts all units that are due after the elapsed time. It returns how long the loop may wait, in milliseconds.
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

// dial opens a non-blocking socket to addr. If source is not zero, the connection comes from that loopback address.
// Clients take different sources, so that connections in TIME_WAIT do not use up the ports of one address.
func dial(kind int, addr netip.AddrPort, source int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil && source > 0 {
		// Let connect choose the port, because it knows the destination, which makes the connection unique.
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

// sources is the number of client addresses.
const sources = 32

// again reports whether err only means that the socket is not ready.
func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

var errUnanswered = errors.New("no answer")
