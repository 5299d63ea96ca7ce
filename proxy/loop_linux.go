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

// An eventLoop serves many sockets from one thread: it waits for ready sockets with edge-triggered epoll, and does what
// can be done without waiting. Only the loop's goroutine touches the loop's pairs, pipes and timers; other goroutines
// call post.
//
// These invariants hold whenever the loop waits:
//
//   - A source marked readable belongs to a direction that waits for its destination. The loop itself leaves nothing
//     unmoved that could be moved, because epoll would not report it again.
//   - No pipe is lent, and only directions with a full destination keep buffers.
//   - Every pair with a time limit has its timer set.
//
// A timer fires only after everything that arrived before its time was handled, see horizon.
type eventLoop struct {
	id         int
	epfd       int
	wakefd     int
	began      time.Time
	now        time.Duration // time on the loop's clock, read once in each turn; set to the horizon while timers fire
	horizon    horizon
	behind     bool // whether this turn leaves datagrams for a later turn
	turnNumber uint64
	yielded    time.Duration // last call of Gosched, by the loop's clock
	load       atomic.Int64  // number of pairs in the loop
	shards     atomic.Int64  // number of shards of UDP listeners in the loop
	forking    atomic.Bool   // see discard
	relays     bool          // whether this turn had something to move of a pair that is no newcomer, or datagrams
	relayed    atomic.Int64  // the last turn with relays, by the loop's clock; 0: none

	mu      sync.Mutex
	posted  []func()    // functions to run; guarded by mu
	ended   bool        // run takes no more posted functions; guarded by mu
	pending atomic.Bool // posted is not empty
	asleep  atomic.Bool // the loop waits for events, or is about to, so post must wake it
	stopped bool

	saidDeaf bool // whether deaf has logged an error

	events  [128]unix.EpollEvent
	sockets []pollable // sockets by the number that their epoll events carry
	unused  []int32    // numbers that no socket has
	leaving []int32    // numbers that become free after the current events are handled
	again   []task     // directions that used up their share of a turn and have more to move
	spare   []task

	search   search // search for sessions to end when descriptors are short
	wheel    wheel.Wheel
	log      hclog.Logger
	denied   *sys.Denials
	udp      *udpKit // buffers for UDP; nil until there is a UDP listener
	tls      *tlsKit // buffers for TLS; nil until a handshake has succeeded
	pipes    *pipePool
	buf      [bufferSize]byte
	backlogs []*backlog  // unused backlogs
	pairs    []*loopPair // unused pairs
	serial   uint64      // last serial number in use, see generation

	byEndpoint map[lb.MemberKey]*endpointPairs // the pairs of each endpoint; only endpoints that have pairs
	empty      []*endpointPairs                // unused endpointPairs
}

// A pollable handles the epoll events of up to two sockets.
type pollable interface {
	// ready handles epoll events of one of the two sockets.
	ready(side int, events uint32)
}

// A task is a direction of a pair that has more to move.
type task struct {
	pair *loopPair
	from int
}

// newLoop returns the loop with number id, which may open so many pipes and whose clock began at began. An error names
// the system call that failed.
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

// awaken registers wakefd with epoll, and checks that epoll_pwait works.
func (l *eventLoop) awaken() error {
	if err := l.add(int32(l.wakefd), unix.EPOLLIN|unix.EPOLLET, l.assignNumber(waker{l}), 0); err != 0 {
		return os.NewSyscallError("epoll_ctl", err)
	}
	if _, err := sys.EpollWait(l.epfd, l.events[:], 0); err != 0 && err != unix.EINTR {
		return os.NewSyscallError("epoll_pwait", err)
	}
	return nil
}

// run runs turns until the loop is stopped.
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

// runTurn waits for events and handles them. Each socket gets a limited share of the turn.
func (l *eventLoop) runTurn() {
	before := l.now
	n, all := l.wait()
	n = l.faultEvents(n)
	l.turnNumber++
	l.now, l.behind = time.Since(l.began), false
	l.wheel.Skip(l.now)
	l.again, l.spare = l.spare[:0], l.again // a direction queued during this turn moves in the next turn
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
	if l.relays {
		l.relays = false
		l.relayed.Store(int64(l.now))
	}
	l.horizon.turned(before, all && !l.behind, patientTurns+len(l.sockets)/len(l.events))
	l.fireTimers()
	// Numbers become free only after all events of the turn: an event may belong to a socket that was closed meanwhile.
	for _, n := range l.leaving {
		l.recycle(l.sockets[n])
		l.sockets[n] = nil
		l.unused = append(l.unused, n)
	}
	l.leaving = l.leaving[:0]
}

// fireTimers fires the timers that are due at the horizon. While timers fire, their owners see the horizon as the
// present time.
func (l *eventLoop) fireTimers() {
	now := l.now
	l.now = l.horizon.at
	l.wheel.Advance(l.now)
	l.now = now
}

// recycle keeps a pair or session that is over for reuse.
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

// yieldEvery is how often a busy loop calls the Go scheduler. A goroutine that has not called the scheduler for 10 ms
// loses its processor at its next waiting system call. The runtime's monitor has to take the processor away, and then
// looks every 20 µs instead of every 10 ms. The frequent looks cost 4 to 6 percent of all processor time under load
// (retake and sysmon of runtime/proc.go, Go 1.26).
const yieldEvery = 5 * time.Millisecond

// wait returns the number of events, and whether these are all that had arrived when wait was called. wait first polls
// without waiting: under load there are events, and the Go scheduler need not be informed.
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
	if timeout == 0 {
		return 0, true
	}
	l.asleep.Store(true)
	if !l.pending.Load() { // after the store: what is posted from now on wakes the loop
		// On an error, such as an interruption, EpollWait returns no events.
		n, _ = sys.EpollWait(l.epfd, l.events[:], timeout)
	}
	l.asleep.Store(false)
	return n, true // all is true, because the first poll found no events
}

// maxWait is the longest wait of a loop in milliseconds. epoll_pwait takes an int32.
const maxWait = 1e9

// deaf handles an error of epoll. Nothing can replace epoll, which package net uses too. deaf logs the error once, and
// pauses so that the loop does not use a whole processor.
func (l *eventLoop) deaf(err syscall.Errno) {
	if !l.saidDeaf {
		l.saidDeaf = true
		l.log.Error("event loop gets no events", "loop", l.id, "error", os.NewSyscallError("epoll_pwait", err))
	}
	time.Sleep(deafPause)
}

// deafPause is the pause of a loop after an error of epoll.
const deafPause = 10 * time.Millisecond

// post makes the loop run f soon. After the loop has ended, post runs f itself.
func (l *eventLoop) post(f func()) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		f()
		return
	}
	defer l.mu.Unlock() // mu is held until the loop is woken, so that run does not close wakefd before
	l.posted = append(l.posted, f)
	l.pending.Store(true)
	if l.asleep.Swap(false) { // after the store of pending: a loop that falls asleep now sees it
		// The write fails only if the loop is being woken already.
		_, _ = unix.Write(l.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// do makes the loop run f, and waits until f has returned. The loop itself must not call do.
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

// A waker resets the eventfd with which other goroutines wake a loop.
type waker struct{ *eventLoop }

func (w waker) ready(int, uint32) {
	var b [8]byte
	_, _ = unix.Read(w.wakefd, b[:]) // the read resets the eventfd; its value does not matter
}

// assignNumber gives s the number that its epoll events carry. Call release when s is done.
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

// add registers fd with epoll. The events of fd go to the given side of the pollable with that number.
func (l *eventLoop) add(fd int32, events uint32, number int32, side int) syscall.Errno {
	return sys.EpollAdd(l.epfd, fd, events, number, int32(side))
}

// discard closes a socket that epoll watches. Usually the close makes epoll forget the socket. If another process holds
// the socket too, discard must remove the socket from epoll.
func (l *eventLoop) discard(fd int32) {
	if l.forking.Load() {
		l.unwatch(fd)
	}
	sys.Close(fd)
}

// unwatch makes epoll stop reporting fd.
func (l *eventLoop) unwatch(fd int32) {
	_ = sys.EpollRemove(l.epfd, fd) // EpollRemove fails if epoll does not watch fd, which does not matter
}

// A backlog holds bytes that were read from a source and do not fit into the destination yet.
type backlog struct {
	buf      [bufferSize]byte
	from, to int
	next     *backlog // backlog with the bytes that follow; nil if there are none
}

// maxFree limits how many free objects of a kind are kept, such as the backlogs and pairs of a loop.
const maxFree = 64

// newBacklog returns an empty backlog.
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

// keep returns a backlog with a copy of b. b has at most bufferSize bytes.
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

// A udpKit holds the buffers of a loop that serves UDP.
type udpKit struct {
	in       *batch.Batch // datagrams received from clients
	down     answers
	up       batch.Sender
	work     []*loopSession // sessions with datagrams in the current batch
	sessions []*loopSession // unused sessions
}

// useUDP makes the loop's udpKit unless it has one.
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
