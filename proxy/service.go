package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

// A service is a Service at work: what sockets see of it, and what outlives a change of its specification. It is all
// that an engine knows beside its socket: give me an endpoint, this is how it went.
type service struct {
	spec     atomic.Pointer[Service]
	aging    atomic.Pointer[aging]
	balancer lb.LoadBalancer
	share    *share // of the descriptors
	log      hclog.Logger
	counters []counters // one for each loop of the engine, so that loops do not contend for a cache line
	troubles reporter
	access   *accessTap
	admit    func(service string, p Protocol, e lb.Endpoint, addr netip.AddrPort) error // see Options.Admit; nil: all

	// clients counts while spec.MaxPerClient is set, and only what began then.
	clients   clientCount
	uncounted *callback // see Proxier.NotifyUncounted
}

func newService(spec *Service, balancer lb.LoadBalancer, log hclog.Logger, loops int) *service {
	s := &service{balancer: balancer, log: log.With("service", spec.Name), counters: make([]counters, loops)}
	s.spec.Store(spec)
	s.aging.Store(&aging{age: max(spec.MaxAge, 0), grace: spec.maxAgeGrace()})
	return s
}

func (s *service) name() string { return s.spec.Load().Name }

// at is the counters of one loop.
func (s *service) at(loop int) *counters { return &s.counters[loop] }

// pick picks an endpoint for the client at src. Whoever gets it has to say when it is Done.
func (s *service) pick(src netip.AddrPort, tried lb.Tried) (*lb.Member, error) {
	m, err := s.balancer.NextEndpoint(s.name(), src, tried)
	if err == nil && tried.Len() > 0 {
		s.at(0).retries.Add(1)
	}
	return m, err
}

// wait has a client that found no room wait for some.
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

// adopt is a use of the endpoint that another process has picked for a session; nil if the service does not have it.
func (s *service) adopt(e lb.Endpoint) *lb.Member { return s.balancer.Take(s.name(), e) }

// dialFailed is told of each endpoint that was not reached.
func (s *service) dialFailed(m *lb.Member, err error) {
	cause, local := causeOf(err)
	if !local {
		m.Failed(cause)
	}
	s.at(0).dialsFailed[cause].Add(1) // it is 0 for an error of this host
	message := "endpoint not reached, trying another"
	if outOfPorts(err) {
		message += "; if the ports to dial it from are used up, raise net.ipv4.ip_local_port_range, " +
			"or set net.ipv4.tcp_tw_reuse=1"
	}
	s.troubles.warn(s.log, message, "endpoint", m.Address(), "error", err)
}

// unserved is told of each client that got no endpoint, or none that answered.
func (s *service) unserved(client netip.AddrPort, err error) {
	s.at(0).refused[refusalOf(err)].Add(1)
	s.troubles.warn(s.log, "client refused", "client", client, "error", err)
}

// warnOfWaiting logs why TCP clients have to wait for descriptors.
func (s *service) warnOfWaiting() {
	taken, floor := s.share.load()
	if s.share.atCeiling(pairDescriptors) {
		s.troubles.warn(s.log, "the service has all descriptors that it may have, its new clients wait until "+
			"others leave; raise the limit (ulimit -n, LimitNOFILE=)",
			"taken", taken, "ceiling", s.share.budget.ceiling.Load())
		return
	}
	s.troubles.warn(s.log, "the process is out of descriptors, new clients wait until others leave; "+
		"raise the limit (ulimit -n, LimitNOFILE=)", "taken", taken, "floor", floor)
}

// outOfHops is told of datagrams that are dropped because they have no hops left.
func (s *service) outOfHops(client netip.AddrPort) {
	s.troubles.warn(s.log, "datagram dropped, its last hop was here; does an endpoint lead back?", "client", client)
}

// A reporter logs one line in a while, and how many it did not: a dead endpoint under load must not flood the log.
type reporter struct {
	next atomic.Pointer[time.Time] // when a line may be logged again; nil: none was yet
	held atomic.Int64              // lines not logged since the last one
}

const reportEvery = 5 * time.Second

func (r *reporter) warn(log hclog.Logger, message string, args ...any) {
	if !r.isDue(time.Now()) {
		r.held.Add(1)
		return
	}
	if n := r.held.Swap(0); n > 0 {
		args = append(args, "similar_before", n)
	}
	log.Warn(message, args...)
}

// isDue reports whether a line may be logged now, and counts it as logged.
func (r *reporter) isDue(now time.Time) bool {
	last := r.next.Load()
	if last != nil && now.Before(*last) {
		return false
	}
	next := now.Add(reportEvery)
	return r.next.CompareAndSwap(last, &next)
}
