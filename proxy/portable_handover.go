package proxy

import (
	"net"
	"os"
	"time"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// This file hands UDP sessions of the portable engine over to another process, see Session.

func (t *tcpSocket) descriptors() ([]int, error) {
	fd, err := duplicateConn(t.listener)
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

func (u *udpSocket) descriptors() ([]int, error) {
	fd, err := duplicateConn(u.conn)
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

func (u *udpSocket) release() { _ = u.Close() } // its error is of no use to the caller

// A pause is the state of a socket between suspend and resume. suspend interrupts readers with a read deadline in the
// past.
type pause struct {
	reader   chan struct{}              // closed when ProxyLoop has paused
	replies  map[*session]chan struct{} // closed when replies of the session has paused
	returned map[*session]bool          // sessions that suspend has returned
	over     chan struct{}              // closed when resume is called
	still    bool                       // suspend holds the lock expiring
}

// suspend implements sessionSocket.
func (u *udpSocket) suspend() []Session {
	p := &pause{reader: make(chan struct{}), over: make(chan struct{})}
	if !u.pausing.CompareAndSwap(nil, p) {
		return nil
	}
	_ = u.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if the socket is closed, and then the reader has ended
	select {
	case <-p.reader:
	case <-u.ctx.Done():
		return nil
	}
	// From here on no session begins and no session expires, because the other process gets their descriptors.
	u.expiring.Lock()
	all := u.sessions.snapshot()
	// Sessions that end by themselves read p, so what is known now goes into another pause.
	with := &pause{reader: p.reader, replies: map[*session]chan struct{}{}, returned: map[*session]bool{}, over: p.over,
		still: true}
	for _, x := range all {
		if x.usable.Load() && !x.service.spec.Load().isOneWay() {
			with.replies[x] = make(chan struct{})
		}
	}
	u.pausing.Store(with)
	for x := range with.replies {
		_ = x.io.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if the session's socket is closed
	}
	var out []Session
	for _, x := range all {
		stands, ok := with.replies[x]
		if !ok || x.refused.Load() {
			continue
		}
		select {
		case <-stands:
		case <-x.ended:
			continue
		}
		// The descriptor is not duplicated, because there may be more sessions than free descriptors.
		if raw, err := x.io.conn.SyscallConn(); err == nil {
			// Control fails only if the socket is closed.
			_ = raw.Control(func(fd uintptr) { out = append(out, u.handed(x, int(fd))) })
			with.returned[x] = true
		}
	}
	return out
}

func (u *udpSocket) handed(x *session, fd int) Session {
	return Session{
		Client: x.key.client, Local: x.key.local, Endpoint: x.endpoint.Endpoint, Requests: x.asked.Load(),
		Answers: x.datagramsDown.Load(), Sent: x.datagramsUp.Load(),
		Up: x.bytesUp.Load(), Down: x.bytesDown.Load(), Age: u.now() - x.began,
		Quiet: u.now() - time.Duration(x.last.Load()), Bound: u.sessions.get(x.key) == x, FD: fd,
		Headers: x.headers.handed(),
	}
}

// resume implements sessionSocket.
func (u *udpSocket) resume() {
	p := u.forgetPause()
	if p == nil {
		return
	}
	_ = u.conn.SetReadDeadline(time.Time{})
	for x := range p.replies {
		_ = x.io.conn.SetReadDeadline(time.Time{})
	}
	close(p.over)
}

// forgetPause ends the pause and returns it, or nil if there is none. The read deadlines remain set.
func (u *udpSocket) forgetPause() *pause {
	p := u.pausing.Swap(nil)
	if p != nil && p.still {
		u.expiring.Unlock()
	}
	return p
}

// stand pauses a reader after an error. If suspend has caused the error, stand waits for resume and returns true. x is
// the session that replies reads for, or nil for the reader of the clients' datagrams.
func (u *udpSocket) stand(x *session) bool {
	p := u.pausing.Load()
	if p == nil {
		return false
	}
	stands := p.reader
	if x != nil {
		if stands = p.replies[x]; stands == nil {
			return false
		}
	}
	close(stands)
	select {
	case <-p.over:
		return true
	case <-u.ctx.Done():
		return false
	}
}

// adopt implements sessionSocket.
func (u *udpSocket) adopt(all []Session) (adopted int) {
	for _, x := range all {
		if u.adoptOne(x) {
			adopted++
		} else {
			closeSession(x.FD)
		}
	}
	return adopted
}

func (u *udpSocket) adoptOne(a Session) bool {
	s := u.service.Load()
	if !s.spec.Load().adopts(int64(u.sessions.len())) || !s.share.take(sessionDescriptors) {
		return false
	}
	endpoint := s.adopt(a.Endpoint)
	if endpoint == nil {
		s.share.release(sessionDescriptors)
		return false
	}
	x := newSession(u, s, sessionKey{client: a.Client, local: a.Local}, endpoint)
	x.asked.Store(a.Requests)
	x.datagramsUp.Store(a.Sent)
	x.datagramsDown.Store(a.Answers)
	x.bytesUp.Store(a.Up)
	x.bytesDown.Store(a.Down)
	x.began = u.now() - a.Age
	x.headers = a.Headers.adopted()
	x.key.introduced = introducedBy(x.headers.again())
	x.counted = s.countAnyway(x.client())
	if err := x.adopt(a.FD); err != nil {
		if x.counted {
			s.uncount(x.client())
		}
		endpoint.Done()
		s.share.release(sessionDescriptors)
		return false
	}
	if u.begin(x) == nil {
		return true // the session is closed, and its descriptor too
	}
	x.last.Store(int64(u.now() - a.Quiet))
	u.sessions.wake()
	if !a.Bound || x.headers.usedBy() != s.spec.Load().headerUse() {
		u.sessions.unbind(x)
	}
	return true
}

// adopt makes fd the session's socket. After an error the caller still owns fd.
func (x *session) adopt(fd int) error {
	c, err := connOf(fd)
	if err != nil {
		return err
	}
	if err := x.io.use(c); err != nil {
		_ = c.Close()
		return err
	}
	closeSession(fd)
	x.usable.Store(true)
	return nil
}

// connOf returns a connection of package net that uses a duplicate of fd.
func connOf(fd int) (*net.UDPConn, error) {
	d, err := duplicateFD(fd)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(d), "session")
	defer func() { _ = f.Close() }() // the connection has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	sys.DisableGRO(u)
	return u, nil
}
