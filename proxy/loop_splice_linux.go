package proxy

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// splice moves bytes through a pipe with one splice call, and returns their number. Without a pipe splice calls copy.
// splice takes no more from the source than the destination accepts now. Therefore the pipe is empty after splice, and
// a stalled destination never holds a pipe.
//
// The pipe is empty at the start, so EAGAIN means that the source has no bytes. A splice stops at urgent data, and
// returns zero there if the end of the stream follows. copy must then find out whether the stream has really ended.
func (p *loopPair) splice(from int) int {
	f, l := &p.flows[from], p.loop
	room := p.measureRoom(from)
	if room == 0 {
		return 0
	}
	pipe := l.pipes.get()
	if pipe == nil {
		f.bulk = false
		return p.copy(from)
	}
	n, err := sys.Splice(p.fd[from], pipe.W, min(pipe.most, room), p.fd[from])
	if err != 0 || n == 0 {
		l.pipes.put(pipe)
		switch {
		case sys.IsDenial(err):
			l.denied.Note(sys.CallSplice, err)
			f.bulk = false
		case err == 0, err == unix.EAGAIN && p.hangup[from]:
			f.bulk = false
		case err == unix.EAGAIN:
			p.readable[from] = false
		default:
			p.sourceFailed(from, err)
		}
		return 0
	}
	f.bulk = n >= bufferSize
	p.last, p.asked = l.now, from == clientSide
	p.drain(from, pipe, n)
	return n
}

// measureRoom returns how many bytes the destination of a direction accepts now. measureRoom returns 0 if the
// destination is full, and epoll then reports when the destination is writable again. measureRoom asks the kernel only
// if the known space is less than two pipes.
func (p *loopPair) measureRoom(from int) int {
	f, to := &p.flows[from], 1-from
	if f.room < 2*pipeSize {
		room := sys.FaultRoom(p.fd[to], sys.Room(int(p.fd[to])))
		if f.room = int32(min(room, math.MaxInt32)); f.room == 0 {
			p.writable[to] = false
		}
	}
	return int(f.room)
}

// drain writes the n bytes in a pipe to the destination, and returns the pipe to the pool.
func (p *loopPair) drain(from int, pipe *pipe, n int) {
	f, l, to := &p.flows[from], p.loop, 1-from
	left, err := n, syscall.Errno(0)
	for left > 0 && err == 0 {
		var m int
		if m, err = sys.Splice(pipe.R, p.fd[to], left, p.fd[to]); err == 0 {
			left -= m
			f.room -= int32(m)
			p.countMoved(from, m)
		}
	}
	switch {
	case err == unix.EAGAIN: // the destination accepts less than the kernel said; see pipePool.learn
		p.writable[to] = false
		f.room = 0
		err = p.unload(from, pipe, left)
	case sys.IsDenial(err):
		l.denied.Note(sys.CallSplice, err)
		err = p.unload(from, pipe, left)
	}
	if err != 0 {
		l.pipes.discard(pipe)
		p.destinationFailed(from, err)
		return
	}
	l.pipes.put(pipe)
	l.pipes.learn(n, left)
}

// unload moves n bytes from a pipe into memory, where they wait for the destination.
func (p *loopPair) unload(from int, pipe *pipe, n int) syscall.Errno {
	end := &p.flows[from].backlog // the backlog was empty before the splice
	for n > 0 {
		k := p.loop.newBacklog()
		m, err := pipe.Read(k.buf[:])
		if err != 0 {
			p.loop.forget(k)
			return err
		}
		k.to, n = m, n-m
		*end, end = k, &k.next
	}
	return 0
}
