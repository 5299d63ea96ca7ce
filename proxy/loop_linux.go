package proxy

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// An eventLoop serves many sockets from one thread: it waits for what is ready, by epoll, edge-triggered, and does
// what can be done without waiting. Everything that belongs to a loop (its pairs, pipes, timers) is touched by its
// goroutine only; others ask by post.
//
// What holds whenever the loop waits:
//
//   - a source that is marked readable is one whose direction is stopped by its destination, not by the loop:
//     nothing that could be moved is left unmoved, for epoll would not tell of it again;
//   - no pipe is held, and no buffer but by directions whose destination is full;
//   - every pair that has a limit on something has its timer set.
//
// A timer fires only after all that arrived before its time was handled, see horizon.
type eventLoop struct {
	id         int
	epfd       int
	wakefd     int
	began      time.Time
	now        time.Duration // by the loop's clock: since began; read once per turn, and the horizon for timers
	horizon    horizon
	behind     bool // this turn leaves datagrams for later
	turnNumber uint64
	yielded    time.Duration // when, by the loop's clock
	load       atomic.Int64  // pairs
	shards     atomic.Int64  // of UDP listeners
	forking    atomic.Bool   // see discard

	mu      sync.Mutex
	posted  []func() // guarded by mu
	ended   bool     // run has returned or will without looking at posted again; guarded by mu
	pending atomic.Bool
	stopped bool

	saidDeaf bool // see deaf

	events  [128]unix.EpollEvent
	sockets []pollable // by the number that epoll knows them by
	unused  []int32    // numbers
	leaving []int32    // numbers to be unused once the events in hand are done with
	again   []task     // directions that had their share of a turn, with more to do
	spare   []task

	search   search // for room
	wheel    wheel.Wheel
	log      hclog.Logger
	denied   *sys.Denials
	udp      *udpKit // nil until there is a UDP listener
	pipes    *pipePool
	buf      [bufferSize]byte
	backlogs []*backlog  // free ones
	pairs    []*loopPair // free ones
	serial   uint64      // the last one that was given, see generation

	byEndpoint map[lb.MemberKey]*endpointPairs // those with pairs
	empty      []*endpointPairs                // free ones
}

// A pollable is what epoll tells of.
type pollable interface {
	// ready is told what happened at one of up to two sockets.
	ready(side int, events uint32)
}

// A task is a direction of a pair to be moved on.
type task struct {
	pair *loopPair
	from int
}

// newLoop returns loop id, which may have so many pipes, with a clock that began at the given time. An error names the
// system call that it is of.
func newLoop(id, pipes int, began time.Time, log hclog.Logger, d *sys.Denials) (*eventLoop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, os.NewSyscallError("eventfd2", err)
	}
	l := &eventLoop{
		id: id, epfd: epfd, wakefd: wakefd, began: began, log: log, denied: d,
		pipes: newPipePool(pipes, d), byEndpoint: map[lb.MemberKey]*endpointPairs{},
	}
	l.wheel.Init()
	if err := l.awaken(); err != nil {
		unix.Close(epfd)
		unix.Close(wakefd)
		return nil, err
	}
	return l, nil
}

// awaken has epoll tell of wakefd, and tries whether it tells anything.
func (l *eventLoop) awaken() error {
	if err := l.add(int32(l.wakefd), unix.EPOLLIN|unix.EPOLLET, l.assignNumber(waker{l}), 0); err != 0 {
		return os.NewSyscallError("epoll_ctl", err)
	}
	if _, err := sys.EpollWait(l.epfd, l.events[:], 0); err != 0 && err != unix.EINTR {
		return os.NewSyscallError("epoll_pwait", err)
	}
	return nil
}

// run turns until stop.
func (l *eventLoop) run() {
	for !l.stopped {
		l.runTurn()
	}
	l.mu.Lock()
	l.ended = true
	rest := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range rest {
		f()
	}
	unix.Close(l.epfd)
	unix.Close(l.wakefd)
	l.pipes.close()
	l.udp.close()
}

// runTurn waits for something to do and does it, each socket its share.
func (l *eventLoop) runTurn() {
	before := l.now
	n, all := l.wait()
	n = l.faultEvents(n)
	l.turnNumber++
	l.now, l.behind = time.Since(l.began), false
	l.wheel.Skip(l.now)
	l.again, l.spare = l.spare[:0], l.again // what is queued from here on is for the next turn
	for i := range l.events[:n] {
		e := &l.events[i]
		if s := l.sockets[e.Fd]; s != nil {
			s.ready(int(e.Pad), e.Events)
		}
	}
	if l.udp != nil {
		l.udp.down.flush()
	}
	if l.pending.Load() {
		l.runPosted()
	}
	for _, t := range l.spare {
		t.pair.flows[t.from].queued = false
		t.pair.move(t.from)
	}
	clear(l.spare)
	l.horizon.turned(before, all && !l.behind, patientTurns+len(l.sockets)/len(l.events))
	l.fireTimers()
	// Only now: an event in hand may have been of a socket that was closed after epoll told of it.
	for _, n := range l.leaving {
		l.recycle(l.sockets[n])
		l.sockets[n] = nil
		l.unused = append(l.unused, n)
	}
	l.leaving = l.leaving[:0]
}

// fireTimers fires the timers that are due at the horizon. To their owners that is the present.
func (l *eventLoop) fireTimers() {
	now := l.now
	l.now = l.horizon.at
	l.wheel.Advance(l.now)
	l.now = now
}

// recycle keeps what is done with for the next of its kind.
func (l *eventLoop) recycle(s pollable) {
	switch s := s.(type) {
	case *loopPair:
		if len(l.pairs) < maxFree {
			l.pairs = append(l.pairs, s)
		}
	case *loopSession:
		if len(l.udp.sessions) < maxFree {
			l.udp.sessions = append(l.udp.sessions, s)
		}
	}
}

// yieldEvery is how often a busy loop lets the Go scheduler run something else. Who has not done so for 10 ms loses
// its processor the next time it waits in a system call, and the runtime's monitor, having had to take it away, then
// looks every 20 µs instead of every 10 ms: 4 to 6 percent of all processor time under load (retake and sysmon of
// runtime/proc.go, Go 1.26).
const yieldEvery = 5 * time.Millisecond

// wait returns how many events there are, and whether these are all that had come when it was called. It looks without
// waiting first: under load there are some, and then the Go scheduler need not know.
func (l *eventLoop) wait() (n int, all bool) {
	if l.now-l.yielded >= yieldEvery {
		l.yielded = l.now
		runtime.Gosched()
	}
	n, err := sys.EpollWait(l.epfd, l.events[:], 0)
	if err != 0 && err != unix.EINTR {
		l.deaf(err)
	}
	if n > 0 || len(l.again) > 0 || l.pending.Load() || err != 0 {
		return n, n < len(l.events) && err == 0
	}
	timeout := -1
	if next := l.wheel.Next(time.Since(l.began)); next >= 0 {
		timeout = int(min((next+time.Millisecond-1)/time.Millisecond, maxWait))
	}
	if timeout != 0 {
		n, _ = sys.EpollWait(l.epfd, l.events[:], timeout) // an interruption is nothing to do
	}
	return n, true // by the first look
}

// maxWait is the longest that a loop waits, in milliseconds: epoll takes no more than an int32.
const maxWait = 1e9

// deaf is told that epoll tells nothing. There is no way round that: package net lives by epoll too. So all that is
// left is not to take a whole processor for it, and to say so.
func (l *eventLoop) deaf(err syscall.Errno) {
	if !l.saidDeaf {
		l.saidDeaf = true
		l.log.Error("event loop serves nobody", "loop", l.id, "error", os.NewSyscallError("epoll_pwait", err))
	}
	time.Sleep(deafPause)
}

// deafPause is how long a loop does nothing after an error of epoll.
const deafPause = 10 * time.Millisecond

// post has f run by the loop, soon. After the loop has ended f runs at once.
func (l *eventLoop) post(f func()) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		f()
		return
	}
	defer l.mu.Unlock() // until the loop is woken: it closes what wakes it only after it has had the lock
	l.posted = append(l.posted, f)
	if !l.pending.Swap(true) {
		_, _ = unix.Write(l.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if the loop is being woken already
	}
}

// do has f run by the loop, and waits for it. Not to be called by the loop.
func (l *eventLoop) do(f func()) {
	done := make(chan struct{})
	l.post(func() {
		f()
		close(done)
	})
	<-done
}

func (l *eventLoop) runPosted() {
	l.pending.Store(false)
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// A waker is the event by which others wake a loop.
type waker struct{ *eventLoop }

func (w waker) ready(int, uint32) {
	var b [8]byte
	_, _ = unix.Read(w.wakefd, b[:]) // only the event matters, and it has been told
}

// assignNumber gives s a number for epoll; release takes it back when s is done with.
func (l *eventLoop) assignNumber(s pollable) int32 {
	if n := len(l.unused); n > 0 {
		i := l.unused[n-1]
		l.unused = l.unused[:n-1]
		l.sockets[i] = s
		return i
	}
	l.sockets = append(l.sockets, s)
	return int32(len(l.sockets) - 1)
}

func (l *eventLoop) release(number int32) { l.leaving = append(l.leaving, number) }

// add has epoll tell of fd, as the given side of the pollable of that number.
func (l *eventLoop) add(fd int32, events uint32, number int32, side int) syscall.Errno {
	return sys.EpollAdd(l.epfd, fd, events, number, int32(side))
}

// discard closes a socket that epoll tells of. Usually epoll forgets it then by itself; not so if another process
// has it too.
func (l *eventLoop) discard(fd int32) {
	if l.forking.Load() {
		l.unwatch(fd)
	}
	sys.Close(fd)
}

// unwatch has epoll tell no more of fd.
func (l *eventLoop) unwatch(fd int32) {
	_ = sys.EpollRemove(l.epfd, fd) // it fails if epoll does not know fd
}

// A backlog is what was read from a source and does not fit into its destination yet.
type backlog struct {
	buf      [bufferSize]byte
	from, to int
	next     *backlog // read after this one; nil: nothing
}

// maxFree bounds the free backlogs and pairs that a loop keeps.
const maxFree = 64

// newBacklog returns an empty one.
func (l *eventLoop) newBacklog() *backlog {
	n := len(l.backlogs)
	if n == 0 {
		return new(backlog)
	}
	k := l.backlogs[n-1]
	l.backlogs = l.backlogs[:n-1]
	k.from, k.to, k.next = 0, 0, nil
	return k
}

// keep returns one with a copy of b, which is at most bufferSize long.
func (l *eventLoop) keep(b []byte) *backlog {
	k := l.newBacklog()
	k.to = copy(k.buf[:], b)
	return k
}

func (l *eventLoop) forget(k *backlog) {
	if len(l.backlogs) < maxFree {
		l.backlogs = append(l.backlogs, k)
	}
}

// A udpKit is what a loop that serves UDP has beside its sockets.
type udpKit struct {
	in       *batch.Batch // of clients
	down     answers
	up       batch.Sender
	work     []*loopSession // sessions that have datagrams in the batch in hand
	sessions []*loopSession // free ones
}

// useUDP makes the kit if there is none.
func (l *eventLoop) useUDP() {
	if l.udp == nil {
		l.udp = &udpKit{
			in: batch.New(l.denied), up: batch.Sender{Denied: l.denied}, work: make([]*loopSession, 0, batch.Size),
			down: answers{in: batch.New(l.denied), out: batch.Sender{Denied: l.denied}},
		}
	}
}

func (k *udpKit) close() {
	if k != nil {
		k.in.Free()
		k.down.in.Free()
	}
}
