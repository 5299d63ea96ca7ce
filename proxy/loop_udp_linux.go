package proxy

import (
	"cmp"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// loopUDP is the UDP proxySocket of the loop engine. Several loops have their own sockets at the address (SO_REUSEPORT,
// socket(7)): all loops, or only some if there are many listeners, see budget.udpSockets. The kernel chooses the socket
// by a hash of both addresses, so one loop gets all datagrams of a client. A loop therefore needs no lock for its
// clients.
type loopUDP struct {
	engine  *loopEngine
	addr    netip.AddrPort
	local   bool // whether the address is a wildcard; the kernel then reports each datagram's local address
	service atomic.Pointer[service]
	shards  []*udpShard // one for each socket
	drops   dropCount

	sessions atomic.Int64 // number of sessions of all shards
	busy     atomic.Int32 // number of shards that have not drained
	drained  chan struct{}
	closed   chan struct{}
	stopOnce sync.Once
	endOnce  sync.Once
}

func (e *loopEngine) listenUDP(o listenSpec, s *service) (_ proxySocket, err error) {
	addr, n := o.addr.AddrPort, e.budget.udpSockets(o.udp, len(e.loops))
	// An inherited listener keeps its number of sockets, on which the kernel's choice for a client depends.
	if o.file != nil {
		n = 1 + len(o.more)
	} else if e.denied.Has(sys.CallSharePort) || e.getsCopies(addr.Addr()) {
		n = 1
	}
	extra := max(0, int64(n)-listenerDescriptors)
	if err := e.budget.openListener(extra); err != nil {
		if o.file != nil {
			return nil, err
		}
		n, extra = min(n, listenerDescriptors), 0
	}
	loops := e.loopsFor(n)
	u := &loopUDP{
		engine: e, addr: addr, local: addr.Addr().IsUnspecified(),
		drained: make(chan struct{}), closed: make(chan struct{}),
	}
	u.service.Store(s)
	defer func() {
		if err != nil {
			for _, l := range loops {
				l.shards.Add(-1)
			}
			for _, h := range u.shards {
				sys.Close(h.fd)
			}
			e.budget.closeListener(extra)
			err = &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
		}
	}()
	shared, files := o.shared, append([]*os.File{o.file}, o.more...)
	for i, l := range loops {
		if o.file != nil {
			o.file = files[i]
		} else {
			o.shared = shared || i > 0
		}
		fd, bound, err := bindUDP(o, e.denied)
		if err != nil {
			return nil, err
		}
		u.addr, o.addr.AddrPort = bound, bound // the other sockets bind to the same port
		u.shards = append(u.shards, newUDPShard(l, u, int32(fd)))
		if i == 0 && len(loops) > 1 && o.file == nil {
			// The first socket shares its port only after its bind. Otherwise the kernel might choose a port that other
			// sockets of this user share, such as another Lictor's.
			if err := sys.SetReusePort(fd, true); err != nil {
				if !e.denied.Allow(sys.CallSharePort, err) {
					return nil, err
				}
				for _, l := range loops[1:] { // only the first socket serves the listener
					l.shards.Add(-1)
				}
				break
			}
		}
	}
	u.busy.Store(int32(len(u.shards)))
	u.drops.begin(len(u.shards), u.readDrops)
	if left := extra - max(0, int64(len(u.shards))-listenerDescriptors); left > 0 {
		e.budget.closeListener(left)
	}
	e.udp.add(u.shards...)
	return u, nil
}

// getsCopies reports whether each socket of a listener would get a copy of the same datagrams, which Lictor could not
// detect. getsCopies returns true if the address is for broadcast or multicast, or if the system does not report the
// datagrams' local addresses.
func (e *loopEngine) getsCopies(addr netip.Addr) bool {
	switch {
	case addr.IsUnspecified():
		return e.denied.Has(sys.CallLocalAddr)
	case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return true
	case !addr.Is4():
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Bits() < 31 && addr == broadcastOf(p) {
			return true
		}
	}
	return false
}

// broadcastOf returns the last address of an IPv4 network.
func broadcastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(b)
}

// loopsFor returns a loop for each of the n sockets of a listener, preferring loops with the fewest sockets. A loop
// appears twice only if n exceeds the number of loops.
func (e *loopEngine) loopsFor(n int) []*eventLoop {
	fewest := slices.Clone(e.loops)
	slices.SortStableFunc(fewest, func(a, b *eventLoop) int { return cmp.Compare(a.shards.Load(), b.shards.Load()) })
	loops := make([]*eventLoop, n)
	for i := range loops {
		loops[i] = fewest[i%len(fewest)]
		loops[i].shards.Add(1)
	}
	return loops
}

// bindUDP opens and binds a socket, and returns its address including the port.
func bindUDP(o listenSpec, d *sys.Denials) (_ int, bound netip.AddrPort, err error) {
	addr := o.addr.AddrPort
	fd, err := o.openSocket(unix.SOCK_DGRAM)
	if err != nil {
		return -1, bound, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if o.file == nil {
		onlyIPv6(int32(fd), addr.Addr())
	}
	if addr.Addr().IsUnspecified() {
		if err := sys.WantLocal(fd, addr.Addr()); err != nil && !d.Allow(sys.CallLocalAddr, err) {
			return -1, bound, err
		}
	}
	sys.WantHops(int32(fd), addr.Addr())
	d.GrowReceiveBuffer(int32(fd), socketBuffer)
	d.GrowSendBuffer(int32(fd), socketBuffer)
	if o.file != nil {
		bound, err = boundTo(fd, addr)
		return fd, bound, err
	}
	if err = unix.Bind(fd, sockaddr(addr)); err != nil {
		return -1, bound, os.NewSyscallError("bind", err)
	}
	bound, err = boundTo(fd, addr)
	return fd, bound, err
}

func (u *loopUDP) shareAddress(on bool) error {
	if len(u.shards) > 1 {
		return nil // a listener with several sockets always shares its address
	}
	return sys.SetReusePort(int(u.shards[0].fd), on)
}

func (u *loopUDP) Addr() lb.Addr { return lb.Addr{AddrPort: u.addr} }

// serve makes the service of t that of all further datagrams. A session of another service is replaced at its next
// datagram.
func (u *loopUDP) serve(t *tenants) {
	u.countDrops()
	u.service.Store(t.service)
	for _, h := range u.shards {
		h.loop.post(h.retime)
	}
}

// countDrops implements proxySocket.
func (u *loopUDP) countDrops() { u.drops.collect(u.service.Load(), false, u.readDrops) }

func (u *loopUDP) readDrops(socket int) (uint32, bool) { return sys.Drops(u.shards[socket].fd) }

// ProxyLoop makes the loops read the clients' datagrams. Like loopTCP.ProxyLoop, this ProxyLoop does not wait.
func (u *loopUDP) ProxyLoop() error {
	for _, h := range u.shards {
		h.loop.post(h.open)
	}
	return nil
}

// stop prevents new sessions. Existing sessions end when they have been quiet for drainQuiet.
func (u *loopUDP) stop() {
	u.stopOnce.Do(func() {
		for _, h := range u.shards {
			h.loop.do(h.drain)
		}
	})
}

// Close ends all sessions and closes the sockets. Close returns nil.
func (u *loopUDP) Close() error {
	u.stop()
	u.endOnce.Do(func() {
		u.drops.collect(u.service.Load(), true, u.readDrops)
		for _, h := range u.shards {
			u.engine.udp.remove(h)
			h.loop.do(h.close)
			h.loop.shards.Add(-1)
		}
		u.engine.budget.closeListener(max(int64(len(u.shards)), listenerDescriptors))
		close(u.closed)
	})
	<-u.closed
	return nil
}

// Shutdown prevents new sessions, and closes the sockets when all sessions have ended or ctx ends. A session ends when
// it has been quiet for drainQuiet.
func (u *loopUDP) Shutdown(ctx context.Context) error {
	u.stop()
	select {
	case <-u.drained:
	case <-u.closed:
	case <-ctx.Done():
	}
	_ = u.Close() // Close returns no error
	return ctx.Err()
}

// shardDrained is called once by each shard that has no session left and gets no new one.
func (u *loopUDP) shardDrained() {
	if u.busy.Add(-1) == 0 {
		close(u.drained)
	}
}
