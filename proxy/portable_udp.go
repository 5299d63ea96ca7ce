package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// udpSocket is the UDP proxySocket of the portable engine. One goroutine reads the clients' datagrams, and one
// goroutine for each session reads the endpoint's answers.
type udpSocket struct {
	engine  *portable
	conn    *net.UDPConn
	addr    netip.AddrPort
	local   bool // the listener is a wildcard, so datagrams say which address the client dialled
	service atomic.Pointer[service]
	began   time.Time
	drops   dropCount

	// Only the listener's goroutine uses these.
	heard proxyproto.Header // header of the latest datagram; its TLVs are a part of that
	out   []byte            // a datagram with its PROXY header

	ctx      context.Context // ends when all sessions must end
	cancel   context.CancelFunc
	sessions sessionTable
	ended    sync.Once
	running  tracker
	pausing  atomic.Pointer[pause] // nil except between suspend and resume
	expiring sync.Mutex            // held to end an idle session, and between suspend and resume
	looks    int                   // how often in a row an idle session was spared, see isUnread; guarded by expiring
}

func (e *portable) listenUDP(o listenSpec, s *service) (proxySocket, error) {
	addr := o.addr.AddrPort
	c, err := o.listenUDP()
	if err != nil {
		return nil, err
	}
	u := &udpSocket{engine: e, conn: c, addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), began: e.began}
	if addr.Addr().IsUnspecified() {
		if err := sys.WantLocalConn(c, addr.Addr()); err != nil && !e.denied.Allow(sys.CallLocalAddr, err) {
			c.Close()
			return nil, err
		}
		u.local = true
	}
	_ = sys.WantHopsConn(c, addr.Addr()) // if the system denies the option, hop limits are unknown
	e.denied.GrowReceiveBufferConn(c, socketBuffer)
	e.denied.GrowSendBufferConn(c, socketBuffer)
	u.service.Store(s)
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.sessions.init()
	u.drops.begin(1, u.readDrops)
	u.running.run(u.expire)
	e.udp.add(u)
	return u, nil
}

// listenUDP opens a socket with package net.
func (o listenSpec) listenUDP() (*net.UDPConn, error) {
	var c net.PacketConn
	var err error
	if o.file != nil { // the first of a group: when the others are closed, their clients move to it
		c, err = net.FilePacketConn(o.file)
	} else {
		config := o.listenConfig()
		c, err = config.ListenPacket(context.Background(), network(UDP, o.addr.AddrPort.Addr()), o.addr.String())
	}
	if err != nil {
		return nil, err
	}
	u := c.(*net.UDPConn)
	if o.file != nil {
		sys.DisableGRO(u)
	}
	return u, nil
}

func (u *udpSocket) shareAddress(on bool) error {
	c, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	return sys.SetReusePortConn(c, on)
}

func (u *udpSocket) Addr() lb.Addr { return lb.Addr{AddrPort: u.addr} }

// serve makes the service of t that of all further datagrams. A session of another service is replaced at its next
// datagram.
func (u *udpSocket) serve(t *tenants) {
	u.countDrops()
	u.service.Store(t.service)
	u.sessions.wake() // the new service may have another idle timeout
}

// countDrops implements proxySocket.
func (u *udpSocket) countDrops() { u.drops.collect(u.service.Load(), false, u.readDrops) }

func (u *udpSocket) readDrops(int) (uint32, bool) { return sys.DropsConn(u.conn) }

// ProxyLoop reads the clients' datagrams and forwards each. ProxyLoop waits only for the next datagram: sockets to
// endpoints do not block, and other goroutines look up host names.
func (u *udpSocket) ProxyLoop() error {
	buf := make([]byte, maxDatagram)
	oob := make([]byte, sys.OOBSize)
	turn := u.engine.turns.add(func() string {
		return fmt.Sprintf("listener udp %s of service %q", u.addr, u.service.Load().name())
	})
	defer u.engine.turns.remove(turn)
	backoff := minBackoff
	for {
		n, oobn, src, err := u.receive(buf, oob)
		if err != nil {
			if u.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ErrClosed
			}
			if u.stand(nil) {
				continue
			}
			if u.ctx.Err() != nil {
				return ErrClosed
			}
			u.service.Load().log.Warn("receive failed, waiting", "error", err, "wait", backoff)
			sleep(u.ctx.Done(), backoff)
			backoff = min(2*backoff, maxBackoff)
			continue
		}
		backoff = minBackoff
		key := sessionKey{client: src}
		if u.local {
			key.local = u.localOf(oob[:oobn])
		}
		turn.begin()
		u.forward(key, buf[:n], oob[:oobn])
		turn.end()
	}
}

// localOf returns the address that a client dialled, from the control messages of its datagram. On an IPv6 socket the
// result is always an IPv6 address, as in the event loops.
func (u *udpSocket) localOf(oob []byte) netip.Addr {
	local := sys.Local(oob)
	if local.IsValid() && u.addr.Addr().Is6() {
		local = netip.AddrFrom16(local.As16())
	}
	return local
}

// receive waits for a datagram of a client.
func (u *udpSocket) receive(buf, oob []byte) (n, oobn int, src netip.AddrPort, err error) {
	if u.engine.denied.Has(sys.CallRecvmsg) {
		n, src, err = u.conn.ReadFromUDPAddrPort(buf)
		return n, 0, src, err
	}
	n, oobn, _, src, err = u.conn.ReadMsgUDPAddrPort(buf, oob)
	return n, oobn, src, err
}

// answer sends a datagram to a client. source is a control message with the source address, or nil.
func (u *udpSocket) answer(b, source []byte, to netip.AddrPort) error {
	if u.engine.denied.Has(sys.CallSendmsg) {
		_, err := u.conn.WriteToUDPAddrPort(b, to)
		return err
	}
	_, _, err := u.conn.WriteMsgUDPAddrPort(b, source, to)
	return err
}

// forward sends one datagram of a client to its session's endpoint. oob holds the datagram's control messages. If the
// session's endpoint has refused, is ejected or has left the service, this datagram already goes to a new session with
// another endpoint. If the client may not come any more, its session ends.
func (u *udpSocket) forward(key sessionKey, b, oob []byte) {
	s := u.service.Load()
	var heard *proxyproto.Header
	if s.filter.Load().headersOf().heard {
		size, ok := s.hearDatagram(&u.heard, key.client, b)
		if !ok {
			s.at(0).datagramsDropped.Add(1)
			return
		}
		heard, b = &u.heard, b[size:]
		key.introduced = introducedBy(heard)
	}
	var tried lb.Tried
	for range maxDials {
		x := u.sessions.get(key)
		if x != nil {
			refused, sameEndpoint := x.isOver()
			why := notEnded
			if x.cleared.isDue(s) {
				why = x.cleared.renew(s, x.client().Addr(), x.headers.usedBy())
			}
			if why == notEnded {
				why = s.replaces(x.service, x.endpoint, refused)
			}
			if why != notEnded {
				if why == endRefused && !sameEndpoint {
					tried.Add(x.endpoint.ID)
				}
				u.end(x, why)
				x = nil
			}
		}
		if x == nil {
			if x = u.open(s, key, heard, sys.Hops(oob), &tried); x == nil {
				break
			}
		}
		u.sessions.touch(x, u.now()) // before ask, see lapse
		if !x.ask() {
			u.end(x, s.spec.Load().whyComplete())
			continue
		}
		x.countSent(1, len(b)) // before send: an answer may end the session at once, and its record must be complete
		err := x.send(b)
		if err != nil {
			x.countSent(-1, -len(b))
		}
		switch {
		case err == nil:
			if spec := s.spec.Load(); spec.isFull(x.asked.Load()) {
				x.spent.Store(spec.isOneWay())
				u.sessions.unbind(x)
			}
			s.at(0).datagramsUp.Add(1)
			s.at(0).bytesUp.Add(int64(len(b)))
			return
		case isRefusal(err):
			x.refuse(err)
		case errors.Is(err, net.ErrClosed): // the session has just ended
			u.end(x, endCut)
		default: // a full buffer or a filter; the network may lose any datagram
			s.at(0).datagramsDropped.Add(1)
			return
		}
	}
	s.at(0).datagramsDropped.Add(1)
}

// open begins a session for key with an endpoint that is not in tried, if there is one. heard is the PROXY header of
// its first datagram, or nil. hops is the hop limit of that datagram; 0 means unknown. If there is no endpoint, open
// records the reason and returns nil.
func (u *udpSocket) open(s *service, key sessionKey, heard *proxyproto.Header, hops uint8, tried *lb.Tried) *session {
	if u.sessions.isDraining() {
		return nil
	}
	var x *session
	counted, ok := s.beginSession(clientBy(heard, key.client), hops, tried, sessionOpener{
		takeRoom: func() bool { return u.makeRoom(s) },
		giveRoom: func() { s.share.release(sessionDescriptors) },
		attach: func(m *lb.Member) error {
			x = newSession(u, s, key, m)
			x.openHeaders(heard)
			x.hops = max(hops, 1) - 1
			err := x.connect()
			for n := 0; n < maxDials && outOfPorts(err) && !s.spec.Load().Transparent && u.freePort(s); n++ {
				err = x.connect()
			}
			return err
		},
	})
	if !ok {
		return nil
	}
	x.counted = counted
	return u.begin(x)
}

func (u *udpSocket) begin(x *session) *session {
	x.service.at(0).sessions.Add(1)
	x.service.at(0).sessionsActive.Add(1)
	x.rosterAt = u.engine.roster.add(x)
	if !u.sessions.add(x, u.now()) || !u.running.run(x.replies) {
		u.end(x, endCut)
		return nil
	}
	if x.service.log.IsDebug() {
		x.service.log.Debug("session began", "client", x.client(), "endpoint", x.endpoint.Address())
	}
	return x
}

// end ends a session. end does nothing if the session has ended.
func (u *udpSocket) end(x *session, why endReason) {
	u.sessions.remove(x)
	if u.close(x, why) {
		x.service.share.release(sessionDescriptors)
	}
}

// close closes a session. close returns false if the session was closed before; otherwise the caller owns its
// descriptor.
func (u *udpSocket) close(x *session, why endReason) bool {
	if !x.close(why) {
		return false
	}
	u.engine.roster.remove(x.rosterAt)
	return true
}

// now returns the time since began, which is the clock of all sessions.
func (u *udpSocket) now() time.Duration { return time.Since(u.began) }

// expire ends idle sessions until the socket closes.
func (u *udpSocket) expire() {
	for {
		if due := u.expireDue(); !u.sessions.waitFor(u.ctx.Done(), due) {
			return
		}
	}
}

// expireDue ends the sessions that have been idle for too long. expireDue returns the time until the next session
// expires.
func (u *udpSocket) expireDue() time.Duration {
	u.expiring.Lock()
	defer u.expiring.Unlock()
	for now := u.now(); ; {
		x, due := u.sessions.nextToExpire(now)
		if x == nil || due > 0 {
			u.looks = 0
			return due
		}
		if u.looks < maxLooks && u.isUnread(x) {
			u.looks++
			return lookAgain
		}
		draining := u.sessions.isDraining()
		if x.lapse(now - x.service.spec.Load().sessionIdle(draining)) {
			u.end(x, silentSession(x.refused.Load(), draining))
		}
	}
}

// maxLooks is how often in a row an idle session is spared because its sockets have unread datagrams. After maxLooks
// the session ends, because the unread datagrams may belong to other sessions.
const maxLooks = 10

// isUnread reports whether there are unread datagrams that may belong to x. If the process was suspended, sessions seem
// idle until the goroutines that read have run again.
func (u *udpSocket) isUnread(x *session) bool {
	return connReadable(u.conn) || x.usable.Load() && connReadable(x.io.conn)
}

// Close ends all sessions and closes the listener.
func (u *udpSocket) Close() error {
	u.ended.Do(func() {
		u.drops.collect(u.service.Load(), true, u.readDrops)
		u.cancel()
		u.conn.Close()
		u.running.stop()
		u.engine.udp.remove(u)
		u.engine.budget.closeListener(listenerDescriptors)
	})
	p := u.forgetPause()
	for _, x := range u.sessions.snapshot() {
		if p != nil && p.returned[x] {
			u.end(x, endHanded)
		} else {
			u.end(x, endCut)
		}
	}
	return u.running.wait(context.Background())
}

func (u *udpSocket) stop() { u.sessions.drain() }

// Shutdown begins no new sessions. Shutdown closes the socket when all sessions have been quiet for drainQuiet, or when
// ctx ends.
func (u *udpSocket) Shutdown(ctx context.Context) error {
	empty := u.sessions.drain()
	select {
	case <-empty:
	case <-u.ctx.Done(): // the socket was closed meanwhile
	case <-ctx.Done():
	}
	u.Close()
	return ctx.Err()
}
