//go:build !unix

package proxy

import (
	"sync"
	"sync/atomic"
)

// A mover moves the bytes of one direction of a pair. A mover holds a pooled buffer while it waits for its source.
type mover struct {
	pair     *portablePair
	src, dst streamConn
	pipes    *pipePool
	moved    *atomic.Int64 // bytes moved by this direction
	total    *atomic.Int64 // bytes moved in this direction by the whole service
	opening  int           // bytes of the pair's header that are not written yet
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// run moves bytes until the source ends or an error occurs. run returns io.EOF, errIdle, a *writeError, or the error of
// a read.
func (m *mover) run() error { return m.copyAll() }
