package proxy

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPipes bounds the pipes of bulk transfers at one moment. A transfer that gets none goes by read and write.
	maxPipes = 64

	// pipeSize is asked for: large pipes save calls and, more than that, wake-ups of the peers. 1 MiB is what a user without privileges
	// may have (fs.pipe-max-size), as long as all of that user's pipes have less than 16,384 pages (fs.pipe-user-pages-soft), 64 such
	// pipes; then the kernel refuses, and smallPipe is asked for, and then it gives what it gives. See pipe(7).
	pipeSize  = 1 << 20
	smallPipe = 256 << 10

	// pipeIdle is how long an unused pipe is kept.
	pipeIdle = time.Second
)

type pipe struct {
	r, w int
	size int
}

// A pipePool lends pipes, empty ones.
type pipePool struct {
	max    int
	mu     sync.Mutex
	free   []*pipe
	open   int         // lent ones included
	trim   *time.Timer // closes the free ones
	armed  bool        // it will
	closed bool
}

// newPipePool returns a pool of at most max pipes at a time.
func newPipePool(max int) *pipePool { return &pipePool{max: max} }

// get returns nil if there is none to be had.
func (pp *pipePool) get() *pipe {
	if faultPipe() {
		return nil
	}
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if n := len(pp.free); n > 0 {
		p := pp.free[n-1]
		pp.free = pp.free[:n-1]
		return p
	}
	if pp.open >= pp.max {
		return nil
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	p := &pipe{r: fds[0], w: fds[1]}
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, smallPipe)
	}
	p.size, _ = unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	if p.size <= 0 {
		p.size = 64 << 10
	}
	pp.open++
	return p
}

// put takes back an empty pipe. Those that are not in use when a while has passed are closed.
func (pp *pipePool) put(p *pipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if pp.closed {
		pp.closeLocked(p)
		return
	}
	pp.free = append(pp.free, p)
	if !pp.armed {
		pp.armed = true
		pp.trim = time.AfterFunc(pipeIdle, pp.closeIdle)
	}
}

// discard takes back a pipe that has bytes in it.
func (pp *pipePool) discard(p *pipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	pp.closeLocked(p)
}

func (pp *pipePool) closeLocked(p *pipe) {
	unix.Close(p.r)
	unix.Close(p.w)
	pp.open--
}

func (pp *pipePool) closeIdle() {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	pp.armed = false
	for _, p := range pp.free {
		pp.closeLocked(p)
	}
	pp.free = nil
}

// close closes all unused pipes; lent ones are closed when they are put back.
func (pp *pipePool) close() {
	pp.mu.Lock()
	pp.closed = true
	if pp.trim != nil {
		pp.trim.Stop()
	}
	pp.mu.Unlock()
	pp.closeIdle()
}
