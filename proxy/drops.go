package proxy

import "sync"

// A dropCount counts the datagrams that the kernel drops at a listener. The kernel is asked when somebody wants to
// know: no datagram pays for it.
type dropCount struct {
	mu     sync.Mutex
	seen   []uint32 // of each socket of the listener, what is counted
	closed bool     // the sockets are, or are about to be
}

// begin counts from what the sockets have now: they may come from another process. read returns the number of each
// socket, and false where the system does not tell.
func (d *dropCount) begin(sockets int, read func(socket int) (uint32, bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = make([]uint32, sockets)
	for i := range d.seen {
		d.seen[i], _ = read(i)
	}
}

// collect adds to the service what has been dropped since the last call. After the last call, it does nothing: the
// descriptors are another socket's then.
func (d *dropCount) collect(s *service, last bool, read func(socket int) (uint32, bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = last
	for i, before := range d.seen {
		if n, ok := read(i); ok {
			s.at(0).datagramsOverrun.Add(int64(n - before)) // of 32 bits, so it is right when the number begins again
			d.seen[i] = n
		}
	}
}
