package proxy

import (
	"sync"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

const (
	// maxPipes limits the pipes of the portable engine. A transfer without a pipe uses read and write. A pipe is in use
	// only for a moment, so there are seldom more pipes than processors.
	maxPipes = 64

	// loopPipes is the number of pipes of an event loop, which uses one at a time.
	loopPipes = 1

	// pipeSize is the size that Lictor requests for a pipe. Large pipes save system calls and, more than that, wake-ups
	// of the peers. 1 MiB is the limit for unprivileged users (fs.pipe-max-size). When all pipes of the user together
	// have 16,384 pages (fs.pipe-user-pages-soft), which is 64 such pipes, the kernel refuses pipeSize. Lictor then
	// requests smallPipe, and accepts any size after that. See pipe(7).
	pipeSize  = 1 << 20
	smallPipe = 256 << 10

	// leastSplice is the lower limit of learn, and spliceStep is its upward step.
	leastSplice = 32 << 10
	spliceStep  = 16 << 10

	// pipeIdle is how long an unused pipe is kept.
	pipeIdle = time.Second
)

type pipe struct {
	sys.Pipe
	size int // capacity of the pipe in bytes
	most int // the most bytes to splice into the pipe at once
}

// A pipePool lends pipes. A pipe is empty when it is lent and when it is put back. A pipe is lent only between a read
// and the write that follows. A direction that waits for its destination holds no pipe.
type pipePool struct {
	denied *sys.Denials
	max    int
	mu     sync.Mutex
	most   int // the most bytes to splice at once; see learn
	unused []*pipe
	total  int         // number of pipes, including lent ones
	loans  int64       // how often pipes were lent so far
	trim   *time.Timer // closes the unused pipes of the pool
	armed  bool        // the timer trim is running
	closed bool
}

// newPipePool returns a pool of at most max pipes.
func newPipePool(max int, d *sys.Denials) *pipePool {
	return &pipePool{denied: d, max: max, most: pipeSize}
}

// usable reports whether the system lets this process use pipes and splice.
func (pp *pipePool) usable() bool {
	return !pp.denied.Has(sys.CallSplice) && !pp.denied.Has(sys.CallPipe)
}

// get returns nil if there is no pipe to lend.
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

// newPipe opens a pipe with the largest size that the system grants.
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

// learn adapts the number of bytes to splice at once. left of n spliced bytes were not taken by the destination. A
// destination leaves bytes if the kernel is short of memory, or if TCP_NOTSENT_LOWAT is low. Bytes that are left in the
// pipe are copied and wait in this process, so learn then lowers the number.
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

// put takes back an empty pipe. All unused pipes are closed pipeIdle later.
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

// discard takes back a pipe that has bytes in it, and closes it.
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

// close closes all unused pipes. A lent pipe is closed when it is put back.
func (pp *pipePool) close() {
	pp.mu.Lock()
	pp.closed = true
	if pp.trim != nil {
		pp.trim.Stop()
	}
	pp.mu.Unlock()
	pp.closeIdle()
}
