package lb

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// maxProbes is how many checks run at once, of all services together, and maxProbeLookups how many of those look a host
// name up: the others who use the Resolver come first.
const (
	maxProbes       = 64
	maxProbeLookups = 4
)

// A Prober checks the endpoints of a RoundRobin actively: over TCP by connecting, over UDP by a datagram that must be
// answered. It reports each result to the endpoint's Member, as the proxier does.
type Prober struct {
	// Resolver looks up the host names of endpoints. NewProber makes one; another is to be set before Apply.
	Resolver *Resolver

	balancer *RoundRobin
	slots    chan struct{} // one for each check that runs
	lookups  chan struct{} // one for each of those that looks a host name up

	mu       sync.Mutex
	services map[string]*checkedService // by service
	wg       sync.WaitGroup
}

// A Check says how the endpoints of a service are checked. Which network that is by, the service's Options say.
type Check struct {
	Interval time.Duration // between two checks of an endpoint, give or take a tenth
	Timeout  time.Duration // of each
	Send     string        // UDP: the datagram
	Expect   string        // UDP: what the answer must begin with
}

// A checkedService is a service that is being checked.
type checkedService struct {
	check  Check
	cancel context.CancelFunc
}

// NewProber returns a Prober that checks nothing yet.
func NewProber(b *RoundRobin) *Prober {
	return &Prober{
		Resolver: NewResolver(maxProbeLookups), balancer: b, slots: make(chan struct{}, maxProbes),
		lookups: make(chan struct{}, maxProbeLookups), services: map[string]*checkedService{},
	}
}

// Apply makes checks, by service, the ones that are done. Those that are equal to what they were go on.
func (p *Prober) Apply(checks map[string]Check) {
	p.mu.Lock()
	defer p.mu.Unlock()
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

// Close ends all checks, and returns when nothing is left of them.
func (p *Prober) Close() {
	p.Apply(nil)
	p.wg.Wait()
}

// checkService checks the endpoints of a service, each once an interval, spread over it.
func (p *Prober) checkService(ctx context.Context, service string, c Check) {
	var wg sync.WaitGroup
	defer wg.Wait()
	known := map[*usage]context.CancelFunc{}
	defer func() {
		for _, cancel := range known {
			cancel()
		}
	}()
	var seen *roster
	for {
		r := p.rosterOf(service)
		if r != seen { // an update came since
			seen = r
			there := map[*usage]bool{}
			for _, m := range r.members {
				there[m.usage] = true
				if _, ok := known[m.usage]; !ok {
					ctx, cancel := context.WithCancel(ctx)
					known[m.usage] = cancel
					wg.Go(func() { p.checkEndpoint(ctx, m, c) })
				}
			}
			for t, cancel := range known {
				if !there[t] {
					cancel()
					delete(known, t)
				}
			}
		}
		if !sleep(ctx, min(c.Interval, time.Second)) { // new endpoints are found within that
			return
		}
	}
}

// rosterOf returns the endpoints that the service has now.
func (p *Prober) rosterOf(service string) *roster {
	v, ok := p.balancer.services.Load(service)
	if !ok {
		return &roster{}
	}
	return v.(*group).state.Load().roster
}

// checkEndpoint checks one endpoint until ctx ends. The first check comes at once, but for the wait for a slot; the
// others, jittered, are soon spread out.
func (p *Prober) checkEndpoint(ctx context.Context, m *Member, c Check) {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		p.probe(ctx, m, c)
		<-p.slots
		if !sleep(ctx, time.Duration(float64(c.Interval)*(0.9+0.2*rand.Float64()))) {
			return
		}
	}
}

// probe checks an endpoint, and tells what it found, as the proxier does: that it takes a connection says nothing of
// whether it resets the next one, an answer does.
func (p *Prober) probe(ctx context.Context, m *Member, c Check) {
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	overUDP := m.health.address.network == UDP
	check := p.connect
	if overUDP {
		check = func(ctx context.Context, m *Member) error { return p.exchange(ctx, m, c) }
	}
	err := check(limited, m)
	switch {
	case ctx.Err() != nil:
	case err == nil && overUDP:
		m.Reached()
	case err == nil:
		m.Connected()
	default:
		if cause, ours := CauseOf(err); !ours {
			m.Failed(cause)
		}
	}
}

func (p *Prober) connect(ctx context.Context, m *Member) error {
	conn, err := p.dial(ctx, "tcp", m)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial connects to an endpoint. If it has a host name, that is to the first of its addresses to which that is possible.
func (p *Prober) dial(ctx context.Context, network string, m *Member) (net.Conn, error) {
	var d net.Dialer
	if m.Host == "" {
		return d.DialContext(ctx, network, m.Address())
	}
	select {
	case p.lookups <- struct{}{}:
	case <-ctx.Done():
		return nil, ErrLookups
	}
	addrs, err := p.Resolver.Lookup(ctx, m.Host)
	<-p.lookups
	if err != nil {
		return nil, err
	}
	return DialAny(ctx, &d, network, addrs, m.Addr.Port())
}

// exchange sends the datagram and waits for the answer. Datagrams may be lost, so it asks twice.
func (p *Prober) exchange(ctx context.Context, m *Member, c Check) error {
	conn, err := p.dial(ctx, "udp", m)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 1<<16)
	for range 2 {
		if _, err = conn.Write([]byte(c.Send)); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(c.Timeout / 2))
		var n int
		if n, err = conn.Read(buf); err == nil {
			if !bytes.HasPrefix(buf[:n], []byte(c.Expect)) {
				return errUnfit
			}
			return nil
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			return err
		}
	}
	return err
}

// errUnfit is a failed check, see Check.Expect.
var errUnfit = errors.New("another answer than expected")

// sleep waits for d, and tells whether ctx was still going on then.
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
