package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// tcpSocket is the TCP proxySocket of the portable engine. Each connection has two goroutines.
type tcpSocket struct {
	engine   *portable
	listener syscall.Conn // a *net.TCPListener or a *net.UnixListener
	clients  net.Listener // accepts the clients of listener
	addr     lb.Addr
	tenants  atomic.Pointer[tenants]

	accepting     context.Context // ends when no new clients are accepted
	released      atomic.Bool     // another process accepts new clients
	looped        chan struct{}   // closed when ProxyLoop has ended
	stopAccepting context.CancelFunc
	ended         sync.Once
	pairs         tracker
	cutting       context.Context // ends when open connections must be cut
	startCutting  context.CancelFunc
}

func (e *portable) listenTCP(o listenSpec, s *service) (proxySocket, error) {
	l, err := o.listenTCP()
	if err != nil {
		return nil, err
	}
	t := &tcpSocket{engine: e, listener: l.(syscall.Conn), clients: PlainListener(l), addr: o.addr}
	if tcp, is := l.Addr().(*net.TCPAddr); is {
		t.addr.AddrPort = tcp.AddrPort()
	}
	t.serve(&tenants{s, o.routes})
	t.looped = make(chan struct{})
	t.accepting, t.stopAccepting = context.WithCancel(context.Background())
	t.cutting, t.startCutting = o.cut()
	return t, nil
}

// listenTCP opens a listener with package net.
func (o listenSpec) listenTCP() (net.Listener, error) {
	if o.file != nil {
		return net.FileListener(o.file)
	}
	config := o.listenConfig()
	return config.Listen(context.Background(), network(TCP, o.addr.AddrPort.Addr()), o.addr.String())
}

func (t *tcpSocket) shareAddress(on bool) error {
	c, err := t.listener.SyscallConn()
	if err != nil {
		return err
	}
	return sys.SetReusePortConn(c, on)
}

func (t *tcpSocket) Addr() lb.Addr { return t.addr }

func (t *tcpSocket) serve(now *tenants) { t.tenants.Store(now) }

func (t *tcpSocket) countDrops() {}

// ProxyLoop accepts clients and starts a goroutine for each, so accepting never waits for a dial. While no descriptors
// are left, ProxyLoop does not accept, and clients wait in the kernel's queue instead of being refused.
func (t *tcpSocket) ProxyLoop() error {
	defer close(t.looped)
	turn := t.engine.turns.add(func() string {
		return fmt.Sprintf("listener tcp %s of service %q", t.addr, t.tenants.Load().service.name())
	})
	defer t.engine.turns.remove(turn)
	backoff := minBackoff
	for {
		client, err := t.accept()
		switch {
		case t.accepting.Err() != nil && err == nil && t.released.Load():
			// This is the last accepted client, which the other process cannot see.
		case t.accepting.Err() != nil:
			if err == nil {
				abort(client)
			}
			return ErrClosed
		case err != nil:
			if !errors.Is(err, errAborted) { // a client that gave up in the queue is not an error
				t.tenants.Load().service.log.Warn("accept failed, waiting", "error", err, "wait", backoff)
				sleep(t.accepting.Done(), backoff)
				backoff = min(2*backoff, maxBackoff)
			}
			continue
		}
		backoff = minBackoff
		turn.begin()
		now := t.tenants.Load()
		s := now.service
		peer := addrOf(client.RemoteAddr())
		if !now.mayConnect(peer.Addr()) {
			abort(client)
			s.at(0).connections.Add(1)
			s.turnedAway(peer, t.addr)
			turn.end()
			continue
		}
		if t.awaitRoom(s, turn) != nil {
			abort(client)
			return ErrClosed
		}
		if !t.pairs.run(func() { t.handle(client, now) }) {
			s.share.release(pairDescriptors)
			abort(client)
			return ErrClosed
		}
		turn.end()
	}
}

func (t *tcpSocket) accept() (streamConn, error) {
	c, err := t.clients.Accept()
	if err != nil {
		return nil, err
	}
	return c.(streamConn), nil
}

// awaitRoom takes the descriptors of a connection of s, and waits for them. An error means that the socket is closing.
func (t *tcpSocket) awaitRoom(s *service, turn *turn) error {
	reclaim := func() bool { return t.engine.reclaim(s.share) }
	if s.share.take(pairDescriptors) || reclaim() {
		return nil
	}
	s.at(0).descriptorWaits.Add(1)
	s.warnOfWaiting()
	turn.end() // a wait for descriptors does not count as stuck
	defer turn.begin()
	return s.share.acquire(t.patience(), pairDescriptors, reclaim)
}

// patience returns the context that bounds how long an accepted client may wait for descriptors.
func (t *tcpSocket) patience() context.Context {
	if t.released.Load() {
		return t.cutting
	}
	return t.accepting
}

// handle serves one client of now to its end.
func (t *tcpSocket) handle(client streamConn, now *tenants) {
	began := time.Now()
	urgentInline(client)
	keepOpen(client)
	v := newVisit(now)
	defer v.end()
	h, first, err := t.introduce(client, v, began)
	s := v.service
	if err != nil {
		t.refuse(client, s, h.client, err, began)
		return
	}
	src := h.client
	counted, ok := s.countClient(src)
	if !ok {
		t.refuse(client, s, src, errClientLimit, began)
		return
	}
	if counted {
		defer s.uncount(src)
	}
	ctx := t.cutting
	if a := s.spec.Load().AcceptTLS; a != nil {
		before := s.identities.changed()
		c, rest, err := t.open(client, s, a, src, first, began)
		if err != nil {
			t.refuse(client, s, src, err, began)
			return
		}
		client, first, h.tls = c, rest, peerOf(c)
		var left func()
		if ctx, left, err = t.identify(s, h.tls, before); err != nil {
			t.refuse(client, s, src, err, began)
			return
		}
		defer left()
	}
	t.forward(ctx, client, s, &h, first, began)
}

// forward connects a client of s to an endpoint, and relays until the connection or ctx ends. first are the client's
// first bytes.
func (t *tcpSocket) forward(
	ctx context.Context, client streamConn, s *service, h *hop, first []byte, began time.Time,
) {
	src := h.client
	d := dialer{client: client, service: s, resolver: t.engine.resolver, handshakes: t.engine.handshakes, src: src,
		hop: h, untaken: first, request: s.tlsRequest(h)}
	shown := &tcpClient{socket: t, dialer: &d, began: began, tls: peerOf(client)}
	place := t.engine.roster.add(shown)
	defer t.engine.roster.remove(place)
	for {
		server, endpoint, err := d.dial(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			t.refuse(client, s, src, err, began)
			return
		}
		if s.isCutOff(endpoint) { // the endpoint left during the dial
			abort(server)
			endpoint.Done()
			continue
		}
		connect := time.Since(began)
		s.at(0).dials.observe(connect)
		if s.log.IsDebug() {
			s.log.Debug("connected", "client", clientName(src), "endpoint", endpoint.Address(), "took",
				time.Since(began))
		}
		p := newPortablePair(client, server, s)
		p.endpoint, p.untaken = endpoint, d.untaken
		if d.request == nil && !hasHeader(server) { // otherwise the header has gone ahead of the request or handshake
			p.header = s.proxyHeader(h)
		}
		shown.pair.Store(p)
		stop := context.AfterFunc(ctx, func() { p.cut(endOf(context.Cause(ctx))) })
		t.engine.byEndpoint.join(p)
		p.relay(t.engine.pipes)
		t.engine.byEndpoint.part(p)
		stop()
		if p.redial && ctx.Err() == nil {
			shown.pair.Store(nil)
			d.untaken = p.untaken
			d.missed(endpoint, dialError(endpoint, syscall.ECONNRESET))
			continue
		}
		if p.redial {
			abort(client)
		} else {
			p.tellBalancer(src)
		}
		endpoint.Done()
		if s.observed() {
			s.ended(&report{client: src, listener: t.addr, endpoint: endpoint, dialTime: connect, tls: shown.tls,
				age: time.Since(began), up: p.up.Load(), down: p.down.Load()}, p.why, p.cause)
		}
		return
	}
}

// introduce returns what is known of a new client. If the client must send a PROXY header or a ClientHello, introduce
// waits for them, and first are the bytes behind the header.
func (t *tcpSocket) introduce(client streamConn, v *visit, began time.Time) (h hop, first []byte, err error) {
	h = hop{client: addrOf(client.RemoteAddr()), server: addrOf(client.LocalAddr()), id: t.engine.clients.Add(1)}
	s := v.service
	a := s.spec.Load().AcceptProxy
	if a == nil && v.entered {
		return h, nil, nil
	}
	place := t.engine.roster.add(&tcpClient{socket: t, dialer: &dialer{service: s, src: h.client}, began: began,
		greeting: true})
	defer t.engine.roster.remove(place)
	if a != nil {
		if !a.trusts(h.client.Addr()) { // the service has changed since the connection was accepted
			return h, nil, &strangerError{h.client.Addr()}
		}
		if h, first, err = t.greet(client, h, a); err != nil {
			return h, first, err
		}
	}
	if latest := t.tenants.Load(); latest.routes != nil {
		first, err = t.peek(client, first, v)
		h.asksTLS = v.peek.asked
	} else if !v.entered { // a reload has ended the sharing meanwhile
		err = v.moveTo(latest.service)
	}
	v.enter()
	if err == nil && !v.service.mayCome(h.client.Addr()) { // before only a proxy, or not the service, was known
		err = errNotAllowed
	}
	return h, first, err
}

// refuse resets a client that is not served because of err.
func (t *tcpSocket) refuse(client streamConn, s *service, src netip.AddrPort, err error, began time.Time) {
	abort(client)
	why, cause := endOf(err)
	if why.isUnserved() && t.cutting.Err() == nil {
		s.unserved(src, err)
	}
	if s.observed() {
		r := report{client: src, listener: t.addr, age: time.Since(began), tls: peerOf(client)}
		if e := identityErrorIn(err); e != nil {
			r.tls = e.peer
		}
		if denied := denialIn(err); denied != nil {
			r.endpoint, cause = denied.endpoint, denied.why
		}
		s.ended(&r, why, cause)
	}
}

// Close stops accepting and resets all open connections.
func (t *tcpSocket) Close() error {
	t.stop()
	t.startCutting()
	return t.pairs.wait(context.Background())
}

// Shutdown stops accepting and waits until the open connections have ended.
func (t *tcpSocket) Shutdown(ctx context.Context) error {
	defer t.startCutting()
	t.stop()
	if err := t.pairs.wait(ctx); err != nil {
		t.Close()
		return err
	}
	return nil
}

// release implements proxySocket. A client that has just been accepted is still served.
func (t *tcpSocket) release() {
	t.released.Store(true)
	t.ended.Do(func() {
		t.stopAccepting()
		t.clients.Close()
		<-t.looped
		t.pairs.stop()
		t.engine.budget.closeListener(listenerDescriptors)
	})
}

func (t *tcpSocket) stop() {
	t.ended.Do(func() {
		t.stopAccepting()
		t.clients.Close()
		t.pairs.stop()
		t.engine.budget.closeListener(listenerDescriptors)
	})
}
