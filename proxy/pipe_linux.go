package proxy

import (
	"sync"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

const (
	// maxPipes bounds the pipes of the portable engine. A transfer that gets none goes by read and write. Pipes are
	// lent for a moment only, so there are seldom more than processors.
	maxPipes = 64

	// loopPipes is how many an event loop has: it lends one at a time.
	loopPipes = 1

	// pipeSize is asked for: large pipes save calls and, more than that, wake-ups of the peers. 1 MiB is what a user
	// without privileges may have (fs.pipe-max-size), as long as all of that user's pipes have less than 16,384
	// pages (fs.pipe-user-pages-soft), 64 such pipes; then the kernel refuses, and smallPipe is asked for, and then
	// it gives what it gives. See pipe(7).
	pipeSize  = 1 << 20
	smallPipe = 256 << 10

	// leastSplice is the least that learn goes down to, and spliceStep is by how much it goes up at a time.
	leastSplice = 32 << 10
	spliceStep  = 16 << 10

	// pipeIdle is how long an unused pipe is kept.
	pipeIdle = time.Second
)

type pipe struct {
	sys.Pipe
	size int // bytes that it may hold
	most int // bytes to splice into it at once
}

// A pipePool lends pipes. A pipe is empty when it is lent and when it is put back. It is lent for the moment
// between a read and the write that follows: a direction that waits for its destination holds none.
type pipePool struct {
	denied *sys.Denials
	max    int
	mu     sync.Mutex
	most   int // bytes to splice at once; see learn
	unused []*pipe
	total  int         // lent ones included
	loans  int64       // since the beginning
	trim   *time.Timer // closes the free ones
	armed  bool        // it will
	closed bool
}

// newPipePool returns a pool of at most max pipes at a time.
func newPipePool(max int, d *sys.Denials) *pipePool {
	return &pipePool{denied: d, max: max, most: pipeSize}
}

// usable reports whether pipes are of use: the system lets this process have them, and splice.
func (pp *pipePool) usable() bool {
	return !pp.denied.Has(sys.CallSplice) && !pp.denied.Has(sys.CallPipe)
}

// get returns nil if there is none to be had.
func (pp *pipePool) get() *pipe {
	if !pp.usable() || sys.FaultPipe() {
		return nil
	}
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if n := len(pp.unused); n > 0 {
		p := pp.unused[n-1]
		pp.unused = pp.unused[:n-1]
		return pp.lendLocked(p)
	}
	if pp.total >= pp.max {
		return nil
	}
	p, err := pp.newPipe()
	if sys.IsDenial(err) {
		pp.denied.Note(sys.CallPipe, err)
	}
	if err != 0 {
		return nil
	}
	pp.total++
	return pp.lendLocked(p)
}

// newPipe opens a pipe, a large one if the system lets this process have it.
func (pp *pipePool) newPipe() (*pipe, syscall.Errno) {
	raw, err := sys.OpenPipe()
	if err != 0 {
		return nil, err
	}
	p := &pipe{Pipe: raw}
	if err := p.Resize(pipeSize); err != 0 && p.Resize(smallPipe) != 0 && sys.IsDenial(err) {
		pp.denied.Note(sys.CallPipeSize, err)
	}
	p.size = p.Capacity()
	return p, 0
}

func (pp *pipePool) lendLocked(p *pipe) *pipe {
	pp.loans++
	p.most = min(p.size, pp.most)
	return p
}

// learn is told how many of n spliced bytes a destination left in the pipe. Destinations leave bytes when the
// kernel is short of memory or was told to keep little unsent (TCP_NOTSENT_LOWAT). Such bytes are copied and wait
// in this process, so less is spliced at once then.
func (pp *pipePool) learn(n, left int) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	switch {
	case left > 0:
		pp.most = max(pp.most/2, leastSplice)
	case n >= pp.most:
		pp.most = min(pp.most+spliceStep, pipeSize)
	}
}

// put takes back an empty pipe. Those that are not in use when a while has passed are closed.
func (pp *pipePool) put(p *pipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if pp.closed {
		pp.closeLocked(p)
		return
	}
	pp.unused = append(pp.unused, p)
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
	p.Close()
	pp.total--
}

func (pp *pipePool) closeIdle() {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	pp.armed = false
	for _, p := range pp.unused {
		pp.closeLocked(p)
	}
	pp.unused = nil
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
