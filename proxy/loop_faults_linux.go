//go:build faults

package proxy

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// faultEvents adds a false event to the n current ones, reports the failure of doomed dials, and shuffles all events.
func (l *eventLoop) faultEvents(n int) int {
	for i := range l.events[:n] {
		e := &l.events[i]
		if p, ok := l.sockets[e.Fd].(*loopPair); ok && p.state == connecting && e.Pad == serverSide &&
			sys.IsDoomed(p.fd[serverSide]) {
			e.Events |= unix.EPOLLERR | unix.EPOLLHUP
		}
	}
	if n < len(l.events) && rand.IntN(4) == 0 {
		e := &l.events[n]
		*e = unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(rand.IntN(len(l.sockets))), Pad: int32(rand.IntN(2))}
		switch s := l.sockets[e.Fd].(type) {
		case *acceptor:
			n++
		case *loopPair:
			n++
			if s.state == relaying { // a false event would end a dial, and an error would end any pair
				e.Events = []uint32{unix.EPOLLIN, unix.EPOLLOUT, unix.EPOLLIN | unix.EPOLLOUT,
					unix.EPOLLIN | unix.EPOLLPRI, unix.EPOLLIN | unix.EPOLLRDHUP}[rand.IntN(5)]
			}
		}
	}
	rand.Shuffle(n, func(i, k int) { l.events[i], l.events[k] = l.events[k], l.events[i] })
	return n
}
