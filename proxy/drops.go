package proxy

import "sync"

// A dropCount counts the datagrams that the kernel drops at a listener. A dropCount asks the kernel only for a snapshot
// or a reload, so it costs nothing for each datagram.
type dropCount struct {
	mu     sync.Mutex
	seen   []uint32 // for each socket of the listener, the kernel's count when last read
	closed bool     // the listener's sockets are closed, or are about to be
}

// begin starts at the present counts, because the sockets may come from another process. read returns the count of one
// socket, or false if the system does not tell.
func (d *dropCount) begin(sockets int, read func(socket int) (uint32, bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = make([]uint32, sockets)
	for i := range d.seen {
		d.seen[i], _ = read(i)
	}
}

// collect adds the drops since the previous call to the service. After a call with last, collect does nothing, because
// the descriptors may belong to other sockets by then.
func (d *dropCount) collect(s *service, last bool, read func(socket int) (uint32, bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = last
	for i, before := range d.seen {
		if n, ok := read(i); ok {
			s.at(0).datagramsOverrun.Add(int64(n - before)) // uint32 arithmetic, so a wrap of the count is harmless
			d.seen[i] = n
		}
	}
}
