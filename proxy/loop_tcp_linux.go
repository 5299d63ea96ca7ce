package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
	"github.com/lictor-proxy/lictor/proxy/internal/wheel"
)

// loopTCP is the TCP proxySocket of the loop engine. Every loop waits at the one listening socket. The loop that the
// kernel wakes accepts the client, and keeps it unless another loop has clearly fewer pairs.
type loopTCP struct {
	engine  *loopEngine
	fd      int32
	addr    lb.Addr
	tenants atomic.Pointer[tenants]

	acceptors []*acceptor // one for each loop
	once      sync.Once
	pairs     tracker
	cutting   context.Context // ends when all pairs must be cut; the loops cut them one after the other
	cutNow    context.CancelFunc
}

func (e *loopEngine) listenTCP(o listenSpec, s *service) (proxySocket, error) {
	fd, bound, err := listenFD(o)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(o.addr.AddrPort), Err: err}
	}
	t := &loopTCP{engine: e, fd: int32(fd), addr: lb.Addr{AddrPort: bound, Path: o.addr.Path}}
	t.cutting, t.cutNow = o.cut()
	t.serve(&tenants{s, o.routes})
	for _, l := range e.loops {
		d := &acceptor{loop: l, socket: t}
		d.timer.Owner = d
		t.acceptors = append(t.acceptors, d)
	}
	return t, nil
}

// listenFD opens a listening socket, with the options that accepted sockets inherit from it on Linux.
func listenFD(o listenSpec) (_ int, bound netip.AddrPort, err error) {
	addr := o.addr.AddrPort
	fd, err := o.openSocket(unix.SOCK_STREAM)
	if err != nil || o.addr.Path != "" {
		return fd, bound, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	sys.SetOption(int32(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	sys.SetOption(int32(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	sys.SetOption(int32(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	sys.SetKeepAlive(int32(fd), keepAlive)
	if o.file != nil {
		bound, err = boundTo(fd, addr)
		return fd, bound, err
	}
	onlyIPv6(int32(fd), addr.Addr())
	if err = unix.Bind(fd, sockaddr(addr)); err != nil {
		return -1, bound, os.NewSyscallError("bind", err)
	}
	if err = unix.Listen(fd, 1<<16-1); err != nil { // the kernel lowers the backlog to net.core.somaxconn
		return -1, bound, os.NewSyscallError("listen", err)
	}
	bound, err = boundTo(fd, addr)
	return fd, bound, err
}

// openSocket returns a socket for o: the inherited one, or a new, unbound one.
func (o listenSpec) openSocket(kind int) (fd int, err error) {
	if o.file != nil {
		if fd, err = duplicateConn(o.file); err != nil {
			return -1, err
		}
		return fd, os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
	}
	family := sys.Family(o.addr.AddrPort.Addr())
	if fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if o.shared {
		if err = sys.SetReusePort(fd, true); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// onlyIPv6 decides which clients a socket for addr accepts. Only the IPv6 wildcard accepts IPv4 clients too.
func onlyIPv6(fd int32, addr netip.Addr) {
	if addr.Is6() {
		sys.SetOption(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, sys.Boolean(!addr.IsUnspecified()))
	}
}

// boundTo returns addr with the actual port of fd, which is bound to addr.
func boundTo(fd int, addr netip.AddrPort) (netip.AddrPort, error) {
	sa, err := sys.SocketName(unix.SYS_GETSOCKNAME, int32(fd)) // unlike unix.Getsockname, this reads no socket option
	if err != 0 {
		return addr, os.NewSyscallError("getsockname", err)
	}
	return netip.AddrPortFrom(addr.Addr(), sys.AddrPort(&sa).Port()), nil
}

// sockaddr returns addr in the form that package unix takes.
func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	}
	sa := &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
	if zone := addr.Addr().Zone(); zone != "" {
		sa.ZoneId = uint32(sys.InterfaceOf(zone))
	}
	return sa
}

func (t *loopTCP) shareAddress(on bool) error { return sys.SetReusePort(int(t.fd), on) }

func (t *loopTCP) Addr() lb.Addr { return t.addr }

func (t *loopTCP) descriptors() ([]int, error) { return duplicates(t.fd) }

func (t *loopTCP) serve(now *tenants) { t.tenants.Store(now) }

func (t *loopTCP) countDrops() {}

// ProxyLoop makes the loops accept clients. ProxyLoop does not wait: with thousands of listeners, one waiting goroutine
// for each would take much of all memory.
func (t *loopTCP) ProxyLoop() error {
	for _, d := range t.acceptors {
		d.loop.post(d.open)
	}
	return nil
}

// stop accepts the clients that wait in the kernel's queue, because they already count as connected, and no others.
func (t *loopTCP) stop() { t.leave(true) }

// release stops accepting. The clients in the kernel's queue stay for the process that also holds the socket.
func (t *loopTCP) release() { t.leave(false) }

func (t *loopTCP) leave(last bool) {
	t.once.Do(func() {
		for _, d := range t.acceptors {
			d.loop.do(func() { d.close(last) })
		}
		sys.Close(t.fd)
		t.pairs.stop()
		t.engine.budget.closeListener(listenerDescriptors)
	})
}

// Close stops accepting clients and resets the open connections.
func (t *loopTCP) Close() error {
	t.stop()
	t.cutNow()
	for _, d := range t.acceptors {
		d.loop.do(d.cut)
	}
	return t.pairs.wait(context.Background())
}

// Shutdown stops accepting clients and waits for the open connections to end. When ctx ends, Shutdown resets the rest.
func (t *loopTCP) Shutdown(ctx context.Context) error {
	defer t.cutNow()
	t.stop()
	if err := t.pairs.wait(ctx); err != nil {
		_ = t.Close()
		return err
	}
	return nil
}

// An acceptor accepts clients of one listening socket for one loop.
type acceptor struct {
	timer   wheel.Timer
	loop    *eventLoop
	socket  *loopTCP
	number  int32
	watched bool // whether epoll reports clients
	closed  bool
	backoff time.Duration // pause after the last failed accept; zero once a client was accepted
	other   int           // number of the acceptor that lighter checked last
	waiting *waiter       // place in the queue for descriptors; nil if the acceptor does not wait
}

// clientsPerTurn is how many clients an acceptor accepts in one turn. With so few, the clients of a burst wait in the
// listener's queue, where nothing is lost. Waiting at an endpoint is worse, because it may end before it has read their
// requests. Accepting more at once saves no processor time.
const clientsPerTurn = 4

// lastClients limits how many clients of the listener's queue a closing acceptor still accepts.
const lastClients = 1 << 15

func (d *acceptor) open() {
	if d.closed {
		return
	}
	d.number = d.loop.assignNumber(d)
	d.watch()
}

// watch makes epoll report clients. The listener is not watched edge-triggered, because the loops share its queue. For
// each client epoll wakes only one loop, unless the system denies EPOLLEXCLUSIVE.
func (d *acceptor) watch() {
	if d.watched || d.closed {
		return
	}
	denied, err := d.socket.engine.denied, syscall.Errno(0)
	if !denied.Has(sys.CallExclusive) {
		err = d.loop.add(d.socket.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, d.number, 0)
		if sys.IsDenial(err) {
			denied.Note(sys.CallExclusive, err)
		}
	}
	if denied.Has(sys.CallExclusive) {
		err = d.loop.add(d.socket.fd, unix.EPOLLIN, d.number, 0)
	}
	if d.watched = err == 0; !d.watched {
		d.loop.unwatched(d.socket.tenants.Load().service, err)
		d.pauseFor(maxBackoff)
	}
}

// unwatched logs that epoll does not report clients or datagrams of a listener.
func (l *eventLoop) unwatched(s *service, err syscall.Errno) {
	s.troubles.warn(s.log, "epoll refused the listener, trying again", "error", os.NewSyscallError("epoll_ctl", err),
		"wait", maxBackoff)
}

// pauseFor stops accepting clients for the given time.
func (d *acceptor) pauseFor(pause time.Duration) {
	if d.watched {
		_ = sys.EpollRemove(d.loop.epfd, d.socket.fd)
		d.watched = false
	}
	d.loop.wheel.Set(&d.timer, d.loop.now+pause)
}

// Timeout implements wheel.Owner: it ends a pause.
func (d *acceptor) Timeout() { d.watch() }

// ready implements pollable: clients are waiting.
func (d *acceptor) ready(int, uint32) {
	if d.watched {
		d.let(clientsPerTurn)
	}
}

// let accepts up to n clients, and reports whether more may be waiting.
func (d *acceptor) let(n int) bool {
	t, failed := d.socket, 0
	for i := range n {
		now := t.tenants.Load()
		s := now.service
		if !s.share.take(pairDescriptors) {
			if i > 0 {
				return true // no session has to be ended before epoll reports another client
			}
			if !d.loop.reclaim(t.engine, s.share) {
				d.await(s)
				return false
			}
		}
		switch err := d.accept(now); {
		case err == 0:
		case err == unix.EAGAIN, exhausted(err):
			return false
		default:
			// The error concerns one client, which has gone: accept(2), "Error handling". If it does not, the loop must
			// not spin.
			if failed++; failed == n {
				d.pauseFor(minBackoff)
			}
		}
	}
	return true
}

// accept accepts one client, for which the caller has taken descriptors of the service of t. After an error accept
// releases them. If this host caused the error, accept has also paused the acceptor.
func (d *acceptor) accept(t *tenants) syscall.Errno {
	s := t.service
	fd, src, err := d.socket.engine.denied.Accept(d.socket.fd)
	if err == 0 {
		d.backoff = 0
		if t.mayConnect(src.Addr()) {
			d.welcome(fd, src, t)
		} else {
			d.turnAway(fd, src, s)
		}
		return 0
	}
	s.share.release(pairDescriptors)
	if exhausted(err) {
		d.backoff = min(max(2*d.backoff, minBackoff), maxBackoff)
		s.log.Warn("accept failed, waiting",
			"error", os.NewSyscallError("accept", err), "wait", d.backoff)
		d.pauseFor(d.backoff)
	}
	return err
}

// exhausted reports whether err says that this host lacks a resource for now.
func exhausted(err syscall.Errno) bool {
	return err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOBUFS || err == unix.ENOMEM
}

// turnAway resets a client that may not use s.
func (d *acceptor) turnAway(fd int32, src netip.AddrPort, s *service) {
	sys.ResetOnClose(fd)
	sys.Close(fd)
	s.share.release(pairDescriptors)
	s.at(d.loop.id).connections.Add(1)
	s.turnedAway(src, d.socket.addr)
}

// welcome makes this loop or another one serve a client of t.
func (d *acceptor) welcome(fd int32, src netip.AddrPort, t *tenants) {
	if !d.socket.pairs.add() { // added here, so that a stop waits for a client on its way to another loop
		t.service.share.release(pairDescriptors)
		sys.ResetOnClose(fd)
		sys.Close(fd)
		return
	}
	o := d.lighter()
	o.loop.load.Add(1) // added at once, so that the next client of a burst counts it
	if o != d {
		o.loop.post(func() { o.begin(fd, src, t) })
	} else {
		d.begin(fd, src, t)
	}
}

// lighter returns the acceptor of another loop that has fewer pairs, or else d. The kernel wakes any loop, and a few
// long, busy connections should not share one processor while another is idle. Passing on a client costs a wake-up, so
// a loop may have up to a quarter more pairs than another.
func (d *acceptor) lighter() *acceptor {
	n := len(d.socket.acceptors)
	if n == 1 {
		return d
	}
	d.other = (d.other + 1) % (n - 1)
	o := d.socket.acceptors[(d.loop.id+1+d.other)%n]
	if there := o.loop.load.Load(); d.loop.load.Load() > there+there/4 {
		return o
	}
	return d
}

// begin starts to serve a client of t.
func (d *acceptor) begin(fd int32, src netip.AddrPort, t *tenants) {
	l, s, routed := d.loop, t.service, t.routes != nil
	c := s.at(l.id)
	if !routed {
		c.connections.Add(1)
	}
	c.active.Add(1)
	p := l.newPair()
	*p = loopPair{
		loop: l, socket: d.socket, s: s, src: src, serial: l.newSerial(),
		fd:    [2]int32{fd, -1},
		began: l.now, last: l.now, limits: s.spec.Load().limits(),
	}
	p.timer.Owner = p
	p.number = l.assignNumber(p)
	if a := s.spec.Load().AcceptProxy; a != nil {
		p.greet(a, routed)
	} else if routed {
		if p.opening = (&opening{unrouted: true}); p.watchClient() {
			p.beginPeek(nil)
		}
	} else if p.admitted() && p.watchClient() {
		p.openClient()
	}
}

// openClient secures the client's end if it must speak TLS, and then dials.
func (p *loopPair) openClient() {
	a := p.s.spec.Load().AcceptTLS
	switch {
	case a == nil:
		p.connect()
	case a.Plain:
		p.state = guessing
		p.loop.wheel.Set(&p.timer, p.loop.now+peekTimeout)
		p.guess()
	default:
		p.welcomeTLS(a)
	}
}

// admitted reports whether the client may be served, and counts the client. If not, admitted has ended the pair.
func (p *loopPair) admitted() (ok bool) {
	if p.opening != nil && !p.s.mayCome(p.src.Addr()) { // before the header only the proxy was known
		p.unserved(errNotAllowed)
		return false
	}
	if p.counted, ok = p.s.countClient(p.src); !ok {
		p.unserved(errClientLimit)
	}
	return ok
}

// watchClient makes epoll report what happens at the client's socket. If epoll refuses, watchClient has ended the pair
// and returns false.
func (p *loopPair) watchClient() bool {
	errno := p.loop.add(p.fd[clientSide], pairEvents, p.number, clientSide)
	if errno != 0 {
		p.unserved(fmt.Errorf("%w: epoll_ctl: %w", errOutOfDescriptors, errno))
	}
	return errno == 0
}

// pairEvents are the edge-triggered events that a pair needs of its sockets.
const pairEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// newPair returns a pair whose fields the caller must set.
func (l *eventLoop) newPair() *loopPair {
	if n := len(l.pairs); n > 0 {
		p := l.pairs[n-1]
		l.pairs = l.pairs[:n-1]
		return p
	}
	return new(loopPair)
}

// close stops accepting. If last, it first accepts the clients that wait in the queue.
func (d *acceptor) close(last bool) {
	if d.closed {
		return
	}
	if d.number > 0 || d.watched {
		for n := 0; last && n < lastClients && d.let(clientsPerTurn); n += clientsPerTurn {
		}
		d.loop.release(d.number)
	}
	d.closed = true
	if w := d.waiting; w != nil {
		_ = w.share.budget.withdraw(w) // if w has already been granted, resume releases the descriptors
	}
	d.pauseFor(0)
	d.loop.wheel.Clear(&d.timer)
}

// cut cuts this loop's pairs of the listener.
func (d *acceptor) cut() {
	for _, s := range d.loop.sockets {
		if p, ok := s.(*loopPair); ok && p.socket == d.socket {
			p.cut(endCut)
		}
	}
}

// pairEnded releases what a pair has taken.
func (t *loopTCP) pairEnded(p *loopPair) {
	if p.counted {
		p.s.uncount(p.src)
	}
	p.s.at(p.loop.id).active.Add(-1)
	p.loop.load.Add(-1)
	if p.opening != nil {
		p.enter()
	}
	if p.opening == nil || !p.opening.homeless {
		p.s.share.release(pairDescriptors)
	}
	t.pairs.done()
}
