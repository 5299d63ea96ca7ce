package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// A service is what an engine knows of a Service. A service survives changes of its specification. Engines ask the
// service for endpoints, and report to the service how dials and sessions ended.
type service struct {
	spec     atomic.Pointer[Service]
	aging    atomic.Pointer[aging]
	filter   atomic.Pointer[clientFilter] // nil: all clients may come
	peers    atomic.Pointer[clientFilter] // filter of TCP peers and of proxies; nil: all may connect
	balancer lb.LoadBalancer
	share    *share // this service's share of the descriptors
	log      hclog.Logger
	counters []counters // counters for each loop, so that loops do not share cache lines
	troubles reporter
	unwanted reporter // of clients that may not come or do not speak as they must; they suppress no line about a fault
	access   *accessTap
	admit    func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error // see Options.Admit; nil: all

	// clients counts connections and sessions that began while spec.MaxPerClient or spec.MaxPerIdentity was set.
	clients   clientCount
	uncounted *callback // see Proxier.NotifyUncounted

	identities identityIndex
}

func newService(spec *Service, balancer lb.LoadBalancer, log hclog.Logger, loops int) *service {
	s := &service{balancer: balancer, log: log.With("service", spec.Name), counters: make([]counters, loops)}
	s.spec.Store(spec)
	s.setFilters(spec)
	s.aging.Store(&aging{age: max(spec.MaxAge, 0), grace: spec.maxAgeGrace()})
	return s
}

func (s *service) name() string { return s.spec.Load().Name }

// at returns the counters of one loop.
func (s *service) at(loop int) *counters { return &s.counters[loop] }

// pick picks an endpoint for the client at src. The caller must call Done on the endpoint afterwards.
func (s *service) pick(src netip.AddrPort, tried lb.Tried) (*lb.Member, error) {
	m, err := s.balancer.NextEndpoint(s.name(), src, tried)
	if err == nil && tried.Len() > 0 {
		s.at(0).retries.Add(1)
	}
	return m, err
}

// wait queues a client until an endpoint has a free connection slot.
func (s *service) wait(src netip.AddrPort, tried lb.Tried, ready func(*lb.Member, error)) (*lb.Waiter, error) {
	if tried.Len() == 0 {
		return s.balancer.Wait(s.name(), src, tried, ready)
	}
	return s.balancer.Wait(s.name(), src, tried, func(m *lb.Member, err error) {
		if err == nil {
			s.at(0).retries.Add(1)
		}
		ready(m, err)
	})
}

// adopt returns the endpoint that another process has picked for a session, or nil if the service does not have it.
func (s *service) adopt(e lb.Endpoint) *lb.Member { return s.balancer.Take(s.name(), e) }

// dialFailed records that endpoint m was not reached.
func (s *service) dialFailed(m *lb.Member, err error) {
	s.notReached(m, err, "dial failed, trying another endpoint")
}

// notReached is dialFailed with a message for the log.
func (s *service) notReached(m *lb.Member, err error, message string) {
	cause, local := causeOf(err)
	if !local {
		m.FailedWith(cause, err)
	}
	s.at(0).dialsFailed[cause].Add(1) // cause is 0 for an error of this host
	if outOfPorts(err) {
		message += "; if all local ports are in use, raise net.ipv4.ip_local_port_range, " +
			"or set net.ipv4.tcp_tw_reuse=1"
	}
	if !local && s.spec.Load().Transparent {
		message += "; the service is transparent, so its answers must come back to this host: see lictor validate -live"
	}
	s.troubles.warn(s.log, message, "endpoint", m.Address(), "error", err)
}

// unserved records that a client was refused because it got no endpoint, or none that answered.
func (s *service) unserved(client netip.AddrPort, err error) {
	why := refusalOf(err)
	s.at(0).refused[why].Add(1)
	level := hclog.Warn
	switch why {
	case RefusedNotAllowed, RefusedNoRoute, RefusedIntention:
		level = hclog.Info // as the configuration wants it
	case RefusedProxyHeader, RefusedHandshake:
	default:
		s.troubles.warn(s.log, "client refused", aboutRefused(client, err)...)
		return
	}
	if s.unwanted.due() { // asked first, so that nothing is allocated for a line that is not logged
		s.log.Log(level, "client refused", s.unwanted.withHeld(aboutRefused(client, err)...)...)
	}
}

// aboutRefused returns the values of the log line about a client that is refused because of err.
func aboutRefused(client netip.AddrPort, err error) []any {
	args := []any{"client", clientName(client), "error", err}
	if e := identityErrorIn(err); e != nil {
		args = append(args, "identity", e.peer.Identity())
	}
	return args
}

// warnOfWaiting logs why new TCP clients wait for descriptors.
func (s *service) warnOfWaiting() {
	taken, floor := s.share.load()
	if s.share.atCeiling(pairDescriptors) {
		s.troubles.warn(s.log, "the service uses all descriptors that it may have, so new clients wait until "+
			"others leave; raise the limit (ulimit -n, LimitNOFILE=)",
			"taken", taken, "ceiling", s.share.budget.ceiling.Load())
		return
	}
	s.troubles.warn(s.log, "the process is out of descriptors, so new clients wait until others leave; "+
		"raise the limit (ulimit -n, LimitNOFILE=)", "taken", taken, "floor", floor)
}

// outOfHops records that a datagram of client was dropped because its hop limit (TTL) has run out.
func (s *service) outOfHops(client netip.AddrPort) {
	s.troubles.warn(s.log, "datagram dropped: its TTL ran out; does an endpoint lead back?", "client", client)
}

// A reporter logs at most one line in reportEvery, and counts the suppressed lines. A dead endpoint under load must not
// flood the log.
type reporter struct {
	next atomic.Pointer[time.Time] // when the next line may be logged; nil means now
	held atomic.Int64              // lines suppressed since the last line
}

const reportEvery = 5 * time.Second

func (r *reporter) warn(log hclog.Logger, message string, args ...any) {
	if r.due() {
		log.Warn(message, r.withHeld(args...)...)
	}
}

// due reports whether a line may be logged now. If not, the line counts as suppressed.
func (r *reporter) due() bool {
	if r.isDue(time.Now()) {
		return true
	}
	r.held.Add(1)
	return false
}

// withHeld adds the number of suppressed lines to the values of a line that is logged now.
func (r *reporter) withHeld(args ...any) []any {
	if n := r.held.Swap(0); n > 0 {
		args = append(args, "similar_before", n)
	}
	return args
}

// isDue reports whether a line may be logged now. If so, the next line is due after reportEvery.
func (r *reporter) isDue(now time.Time) bool {
	last := r.next.Load()
	if last != nil && now.Before(*last) {
		return false
	}
	next := now.Add(reportEvery)
	return r.next.CompareAndSwap(last, &next)
}
