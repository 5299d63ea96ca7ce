package lb

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/deadline"
)

// At most standbyBatch standby endpoints of one service are checked at the same time. If the service has no check of
// its own, each TCP endpoint must accept a connection within standbyTimeout. The time between two rounds of such checks
// is standbyInterval.
const (
	standbyBatch    = 16
	standbyInterval = 2 * time.Second
	standbyTimeout  = time.Second
)

// A standbyService holds the standby endpoints of one service.
type standbyService struct {
	members []*Member
	cancel  context.CancelFunc
}

// Ejected returns how many of endpoints are ejected. The endpoints need not be in the set of the service. Ejected
// returns zero if the service ignores ejections.
func (b *RoundRobin) Ejected(service string, endpoints []Endpoint) (n int) {
	v, ok := b.services.Load(service)
	if !ok {
		return 0
	}
	g := v.(*group)
	if g.options().MaxFails < 0 {
		return 0
	}
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	for _, e := range endpoints {
		if h := b.registry.healths[g.addressOf(e)]; h != nil && h.ejectedUntil.Load() != 0 {
			n++
		}
	}
	return n
}

// Standby sets the standby endpoints of a service, in place of earlier ones. The service does not use standby endpoints
// now, but may use them again. The Prober checks standby endpoints as the service's Check says, so that their ejections
// can end. If the service has no Check, TCP endpoints must accept a connection, and a UDP ejection ends when its time
// is over. Standby does not wait. Standby does nothing if the balancer does not know the service.
func (p *Prober) Standby(service string, endpoints []Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.standby[service]
	delete(p.standby, service)
	if v, ok := p.balancer.services.Load(service); ok && len(endpoints) > 0 && !p.closed {
		g, s := v.(*group), &standbyService{}
		for _, e := range endpoints {
			s.members = append(s.members, &Member{Endpoint: e, usage: g.newStandby(e)})
		}
		var ctx context.Context
		ctx, s.cancel = context.WithCancel(context.Background())
		p.standby[service] = s
		p.wg.Go(func() { p.checkStandby(ctx, service, s.members) })
	}
	if old != nil { // last: endpoints that stay must keep their health
		old.cancel()
		for _, m := range old.members {
			p.balancer.registry.release(m.usage)
		}
	}
}

// newStandby returns the usage of an endpoint that is not a member.
func (g *group) newStandby(e Endpoint) *usage {
	t := &usage{id: e.ID, standby: true, group: g, entry: ejectedEntry{heapIndex: -1}}
	g.registry.acquire(g.addressOf(e), t)
	return t
}

// checkStandby checks members in rounds until ctx ends, at most standbyBatch members in each round.
func (p *Prober) checkStandby(ctx context.Context, service string, members []*Member) {
	checked := false
	note := func(check bool) {
		if check == checked {
			return
		}
		checked = check
		for _, m := range members {
			if check {
				m.health.beginChecks()
			} else {
				m.health.endChecks()
			}
		}
	}
	defer note(false)
	for next := 0; ; {
		c := p.standbyCheck(service)
		note(c.Send != "")
		var wg sync.WaitGroup
		for range min(len(members), standbyBatch) {
			m := members[next]
			next = (next + 1) % len(members)
			select {
			case p.slots <- struct{}{}:
			case <-ctx.Done():
				wg.Wait()
				return
			}
			wg.Go(func() {
				defer func() { <-p.slots }()
				p.probeStandby(ctx, service, m, c)
			})
		}
		wg.Wait()
		if !sleep(ctx, c.pause()) {
			return
		}
	}
}

// standbyCheck returns the check of a service, or the default check if the service has none.
func (p *Prober) standbyCheck(service string) Check {
	if c, checked := p.checkOf(service); checked {
		return c
	}
	return Check{Interval: standbyInterval, Timeout: standbyTimeout}
}

// probeStandby checks a standby endpoint, and reports the result. The result counts like that of a trial, because no
// client tries the endpoint.
func (p *Prober) probeStandby(ctx context.Context, service string, m *Member, c Check) {
	if m.health.address.network == UDP {
		if c.Send != "" {
			p.probe(ctx, service, m, c)
		} else {
			m.health.returnSilently()
		}
		return
	}
	limited, cancel := deadline.WithTimeout(ctx, c.Timeout)
	defer cancel()
	conn, err := p.dial(limited, p.optionsOf(service), m.Endpoint)
	if err == nil {
		defer func() { _ = hangUp(conn) }()
		m.Connected()
		if m.health.ejectedUntil.Load() == 0 {
			return
		}
		err = staysOpen(ctx, conn) // the endpoint was ejected because it reset connections
	}
	cause, ours := CauseOf(err)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		m.Reached()
	case !ours:
		m.Failed(cause)
	}
}

// staysOpen waits for the peer for up to trialSilence. staysOpen returns nil if the peer sends something or stays
// silent. staysOpen returns an error if the peer resets or closes the connection.
func staysOpen(ctx context.Context, conn net.Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetReadDeadline(time.Now().Add(trialSilence))
	_, err := conn.Read(make([]byte, 1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF): // a server that only closes connections serves no client
		return errUnfit
	}
	return err
}
