package lb

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// maxProbes limits how many checks of all services run at once. maxProbeLookups limits how many of these checks look up
// a host name, so that the Resolver's other callers come first.
const (
	maxProbes       = 64
	maxProbeLookups = 4
)

const (
	probeTimeout = 2 * time.Second // timeout of a Probe for a service without a check

	goodbye     = 100 * time.Millisecond // how long hangUp reads
	maxGreeting = 64 << 10               // how many bytes hangUp reads at most
)

// A Prober checks the endpoints of a RoundRobin actively. Over TCP, a check connects; over UDP, a check sends a
// datagram that the endpoint must answer. The Prober reports each result to the endpoint's Member, as the proxier does.
type Prober struct {
	// Resolver looks up the host names of endpoints. NewProber creates a Resolver. To use another one, set the field
	// before Apply.
	Resolver *Resolver

	own      *Resolver // the Resolver that NewProber has created
	balancer *RoundRobin
	slots    chan struct{} // holds a value for each running check
	lookups  chan struct{} // holds a value for each running check that looks up a host name

	mu       sync.Mutex
	services map[string]*checkedService // by name; guarded by mu
	standby  map[string]*standbyService // by name; guarded by mu
	closed   bool                       // guarded by mu
	wg       sync.WaitGroup

	ending context.Context // ends with Close
	end    context.CancelFunc
}

// A Check says how the endpoints of a service are checked. The check uses the Network of the service's Options.
type Check struct {
	Interval time.Duration // time between two checks of an endpoint, jittered by up to a tenth
	Timeout  time.Duration // time limit of each check
	Send     string        // UDP: the datagram to send
	Expect   string        // UDP: the prefix that the answer must have
}

// pause returns how long to wait before the next check.
func (c Check) pause() time.Duration {
	return time.Duration(float64(c.Interval) * (0.9 + 0.2*rand.Float64()))
}

// A checkedService is a service with active checks.
type checkedService struct {
	check  Check
	cancel context.CancelFunc
}

// NewProber returns a Prober for the endpoints of b. The Prober checks nothing before Apply.
func NewProber(b *RoundRobin) *Prober {
	own := NewResolver(maxProbeLookups)
	p := &Prober{
		Resolver: own, own: own, balancer: b, slots: make(chan struct{}, maxProbes),
		lookups: make(chan struct{}, maxProbeLookups), services: map[string]*checkedService{},
		standby: map[string]*standbyService{},
	}
	p.ending, p.end = context.WithCancel(context.Background())
	return p
}

// Apply replaces all checks. The keys of checks are service names. A check that has not changed goes on. After Close,
// Apply begins no checks.
func (p *Prober) Apply(checks map[string]Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		checks = nil
	}
	for service, r := range p.services {
		if c, ok := checks[service]; !ok || c != r.check {
			r.cancel()
			delete(p.services, service)
		}
	}
	for service, c := range checks {
		if _, ok := p.services[service]; ok {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		p.services[service] = &checkedService{c, cancel}
		p.wg.Go(func() { p.checkService(ctx, service, c) })
	}
}

// Close ends all checks, and waits until they have ended.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.end()
	for _, s := range p.standby {
		s.cancel()
	}
	p.mu.Unlock()
	p.Apply(nil)
	p.wg.Wait()
	p.own.Close()
}

// checkService checks the endpoints of a service until ctx ends. checkService runs one goroutine for each endpoint.
func (p *Prober) checkService(ctx context.Context, service string, c Check) {
	var wg sync.WaitGroup
	defer wg.Wait()
	type key struct {
		usage *usage
		name  string // the ServerName, which can change while the usage stays
	}
	known := map[key]context.CancelFunc{}
	defer func() {
		for _, cancel := range known {
			cancel()
		}
	}()
	var seen *roster
	for {
		r := p.rosterOf(service)
		if r != seen { // the first round, or the first round after an update
			seen = r
			present := map[key]bool{}
			for _, m := range r.members {
				k := key{m.usage, m.ServerName}
				present[k] = true
				if _, ok := known[k]; !ok {
					ctx, cancel := context.WithCancel(ctx)
					known[k] = cancel
					wg.Go(func() { p.checkEndpoint(ctx, service, m, c) })
				}
			}
			for k, cancel := range known {
				if !present[k] {
					cancel()
					delete(known, k)
				}
			}
		}
		if !sleep(ctx, min(c.Interval, time.Second)) { // new endpoints are noticed after this time at the latest
			return
		}
	}
}

// rosterOf returns the current roster of a service. rosterOf returns an empty roster if the service is unknown.
func (p *Prober) rosterOf(service string) *roster {
	v, ok := p.balancer.services.Load(service)
	if !ok {
		return &roster{}
	}
	return v.(*group).state.Load().roster
}

// checkEndpoint checks one endpoint until ctx ends. The first check starts as soon as a slot is free. The intervals are
// jittered, so the checks of many endpoints soon spread out.
func (p *Prober) checkEndpoint(ctx context.Context, service string, m *Member, c Check) {
	m.health.beginChecks()
	defer m.health.endChecks()
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		p.probe(ctx, service, m, c)
		<-p.slots
		if !sleep(ctx, c.pause()) {
			return
		}
	}
}

// probe checks an endpoint once, and reports the result as the proxier does. A TCP connection is reported as Connected,
// not as Reached, because the endpoint may still reset the next connection. A UDP answer is reported as Reached. After
// a failed UDP check, only an answer ends the ejection, see checks. A check that the endpoint denies reports nothing.
func (p *Prober) probe(ctx context.Context, service string, m *Member, c Check) {
	limited, cancel := deadline.WithTimeout(ctx, c.Timeout)
	defer cancel()
	overUDP := m.health.address.network == UDP
	o := p.optionsOf(service)
	o.Network = m.health.address.network
	err := p.check(limited, o, m.Endpoint, c)
	switch {
	case ctx.Err() != nil:
	case err == nil && overUDP:
		m.Reached()
	case err == nil:
		m.Connected()
	default:
		if cause, local := CauseOf(err); !local {
			m.checkFailed(cause, err)
		}
	}
}

// check checks an endpoint of a service with options o once, and returns the error of a failed check.
func (p *Prober) check(ctx context.Context, o Options, e Endpoint, c Check) error {
	if o.Network == UDP {
		return p.exchange(ctx, o, e, c)
	}
	return p.connect(ctx, o, e)
}

// CanProbe reports whether Probe can check the endpoints of a service. UDP endpoints can be checked only if the service
// has a Check.
func (p *Prober) CanProbe(service string) bool {
	_, checked := p.checkOf(service)
	return checked || p.optionsOf(service).Network == TCP
}

// Probe checks the endpoint e of a service once, and reports nothing to the balancer. The balancer need not know e.
// Probe returns nil if the endpoint can be reached, even if it denies the check.
func (p *Prober) Probe(ctx context.Context, service string, e Endpoint) error {
	c, checked := p.checkOf(service)
	if !checked {
		c.Timeout = probeTimeout
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.slots }()
	ctx, cancel := deadline.WithTimeout(ctx, c.Timeout)
	defer cancel()
	err := p.check(ctx, p.optionsOf(service), e, c)
	if errors.Is(err, ErrDenied) { // the endpoint has answered
		return nil
	}
	return err
}

// checkOf returns the check of a service. checkOf returns false if the service has no check.
func (p *Prober) checkOf(service string) (Check, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, checked := p.services[service]
	if !checked {
		return Check{}, false
	}
	return r.check, true
}

// optionsOf returns the options of a service. optionsOf returns the zero Options if the service is unknown.
func (p *Prober) optionsOf(service string) Options {
	if v, ok := p.balancer.services.Load(service); ok {
		return *v.(*group).options()
	}
	return Options{}
}

// connect checks an endpoint over TCP, and with ProbeTLS over TLS.
func (p *Prober) connect(ctx context.Context, o Options, e Endpoint) error {
	conn, err := p.dial(ctx, o, e)
	if err != nil {
		return err
	}
	if o.ProbeTLS != nil {
		return o.ProbeTLS.connect(ctx, conn, e, o.ProbeHeader)
	}
	return hangUp(conn)
}

// connect checks over conn how e shakes hands, and closes conn.
func (p *ProbeTLS) connect(ctx context.Context, conn net.Conn, e Endpoint, header proxyproto.Version) error {
	secure, err := p.shake(ctx, conn, e)
	if err == nil && p.HeaderInside && header != proxyproto.None {
		SendProbeHeader(secure, header)
	}
	if err == nil && p.Denies {
		err = heed(ctx, secure)
	}
	if err == nil {
		return hangUp(secure)
	}
	_ = conn.Close()
	if denial := Denial(err); p.Denies && denial != nil {
		return denial
	}
	return fmt.Errorf("%w: %w", ErrHandshake, err)
}

// heed waits for what an endpoint says to this host's certificate. Under TLS 1.3, a client hears that only after the
// handshake. heed returns nil if the endpoint sends something, ends the connection without a reason, or has said
// nothing when ctx ends.
func heed(ctx context.Context, conn *tls.Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.CloseWrite() // so an endpoint that only waits for a request ends the connection
	_, err := conn.Read(make([]byte, 1))
	if Denial(err) == nil {
		return nil
	}
	return err
}

// shake shakes hands with e over conn. It resumes no session, because a check has to see the certificate.
func (p *ProbeTLS) shake(ctx context.Context, conn net.Conn, e Endpoint) (*tls.Conn, error) {
	config, err := p.Config(e)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ClientSessionCache = nil
	secure := tls.Client(conn, config)
	return secure, secure.HandshakeContext(ctx)
}

// hangUp closes a connection after a check. hangUp first reads the greeting of a server that speaks first. Closing a
// socket with unread data would reset the connection, and some servers count clients that reset connections as broken.
func hangUp(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(goodbye))
	if c, ok := conn.(interface {
		io.Reader
		CloseWrite() error
	}); ok && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, maxGreeting)
	}
	return conn.Close()
}

// dial connects to an endpoint over TCP, and sends the ProbeHeader unless it comes inside TLS. If the endpoint has a
// host name, dial tries the addresses of the name in turn.
func (p *Prober) dial(ctx context.Context, o Options, e Endpoint) (net.Conn, error) {
	if _, err := p.addresses(ctx, e); err != nil {
		return nil, err
	}
	conn, err := p.Resolver.Dial(ctx, &net.Dialer{}, TCP, e, 0, nil)
	if err == nil && o.ProbeHeader != proxyproto.None && (o.ProbeTLS == nil || !o.ProbeTLS.HeaderInside) {
		SendProbeHeader(conn, o.ProbeHeader)
	}
	return conn, err
}

// SendProbeHeader sends the PROXY header of a check over a new connection to a TCP or Unix socket. SendProbeHeader does
// not wait, because a new connection has room for the header, and reports no error: the check sees it when it reads.
func SendProbeHeader(conn net.Conn, v proxyproto.Version) {
	_, _ = conn.Write(v.AppendProbe(nil, addrPortOf(conn.LocalAddr()), addrPortOf(conn.RemoteAddr())))
}

// addrPortOf returns the address of a TCP socket. It is not valid for a Unix socket.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// addresses returns the addresses of an endpoint. At most maxProbeLookups calls look up unknown host names at once.
func (p *Prober) addresses(ctx context.Context, e Endpoint) ([]netip.Addr, error) {
	if e.Host == "" {
		return []netip.Addr{e.Addr.Addr()}, nil
	}
	if addrs, ok := p.Resolver.Known(e.Host); ok {
		return addrs, nil
	}
	select {
	case p.lookups <- struct{}{}:
	case <-ctx.Done():
		return nil, ErrLookups
	}
	defer func() { <-p.lookups }()
	return p.Resolver.Lookup(ctx, e.Host)
}

// exchange checks an endpoint over UDP. One address of the endpoint must answer. Each address gets an equal part of the
// remaining time.
func (p *Prober) exchange(ctx context.Context, o Options, e Endpoint, c Check) error {
	addrs, err := p.addresses(ctx, e)
	if err != nil {
		return err
	}
	addrs = p.Resolver.Order(UDP, e, addrs)
	began := time.Now()
	for i, addr := range addrs {
		patience := (c.Timeout - time.Since(began)) / time.Duration(len(addrs)-i)
		at := netip.AddrPortFrom(addr, e.Addr.Port())
		if err = exchangeWith(ctx, at, c, o.ProbeHeader, patience); err == nil {
			p.Resolver.Reached(UDP, at)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if e.Host != "" {
			p.Resolver.Failed(UDP, e, addr)
		}
	}
	return err
}

// exchangeWith sends the datagram of a check, with a PROXY header of version v in front, and waits for the answer.
// Because a datagram may be lost, exchangeWith tries twice, and waits for half of patience each time.
func exchangeWith(ctx context.Context, addr netip.AddrPort, c Check, v proxyproto.Version,
	patience time.Duration) error {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	request := append(v.AppendProbe(nil, netip.AddrPort{}, netip.AddrPort{}), c.Send...) // v is not V1 over UDP
	buf := make([]byte, 1<<16)
	for range 2 {
		if _, err = conn.Write(request); err != nil {
			return err
		}
		var n int
		if n, err = readWithin(conn, buf, patience/2); err == nil {
			if !bytes.HasPrefix(buf[:n], []byte(c.Expect)) {
				return errUnfit
			}
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// lastLook is how long readWithin continues to read after its time is over.
const lastLook = 20 * time.Millisecond

// readWithin reads from c within d. After d, readWithin tries to read once more: if the process was suspended, data may
// have arrived in time although d is over.
func readWithin(c net.Conn, b []byte, d time.Duration) (n int, err error) {
	for _, d := range []time.Duration{d, lastLook} {
		_ = c.SetReadDeadline(time.Now().Add(d))
		if n, err = c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return n, err
}

// errUnfit is the error of a check that got a wrong answer, or of a peer that closed the connection without sending
// anything.
var errUnfit = errors.New("unexpected answer to the active check")

// sleep waits for d. sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
