//go:build !unix

package proxy

import (
	"net"
	"sync"
	"sync/atomic"
)

// A mover moves the bytes of one direction of a pair, through a pooled buffer that it holds while it waits.
type mover struct {
	pair     *portablePair
	src, dst *net.TCPConn
	pipes    *pipePool
	moved    *atomic.Int64 // by this direction
	total    *atomic.Int64 // by all of the service
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// run moves bytes until the source ends, with io.EOF, or something fails: errIdle, a *writeError, or what reading said.
func (m *mover) run() error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := m.src.Read(buf[:])
		if werr := m.write(buf[:n]); werr != nil {
			return werr
		}
		if err == nil {
			continue
		}
		if end, goOn := m.pair.expired(m, source, err); end {
			return errIdle
		} else if !goOn {
			return err
		}
	}
}
