package proxy

import (
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// OnLeave says how long TCP connections may go on after their endpoint has left its service for good. OnLeave has one
// limit for each reason why an endpoint may leave. A zero limit means that connections may go on for ever. A negative
// limit means that connections are cut at once.
type OnLeave struct {
	Deregistered, Critical, Unmatched time.Duration
}

// Grace returns how long connections may go on if why holds the possible reasons. The longest grace of these reasons
// applies. If ends is false, there is no limit.
func (o OnLeave) Grace(why lb.Reasons) (grace time.Duration, ends bool) {
	for _, one := range []struct {
		why   lb.Reasons
		grace time.Duration
	}{{lb.Deregistered, o.Deregistered}, {lb.Critical, o.Critical}, {lb.Unmatched, o.Unmatched}} {
		if why&one.why == 0 {
			continue
		}
		if one.grace == 0 {
			return 0, false
		}
		grace, ends = max(grace, one.grace), true
	}
	return grace, ends
}

// cutOff returns when connections to m must be cut because m has left. cutOff returns false if the connections need not
// be cut.
func (s *service) cutOff(m *lb.Member) (at time.Time, ends bool) {
	leave := m.Gone()
	if leave == nil {
		return at, false
	}
	grace, ends := s.spec.Load().OnLeave.Grace(leave.Why)
	return leave.At.Add(grace), ends
}

// isCutOff reports whether connections to m must be cut now.
func (s *service) isCutOff(m *lb.Member) bool {
	at, ends := s.cutOff(m)
	return ends && !time.Now().Before(at)
}

// An aging says when connections are too old. An aging is immutable; a service gets a new one when its settings change.
type aging struct {
	age   time.Duration // age at which connections end, give or take a tenth; zero means never
	grace time.Duration // how long to wait for a quiet moment after that age
	since time.Time     // connections that began earlier age from this time
}

// quietFor is how long nothing may have moved before a connection counts as quiet. A connection whose client was the
// last to send is not quiet: the client may be waiting for an answer.
const quietFor = time.Second

// of returns the age limit of the connection with this seed. Limits differ so that connections that began together do
// not end together.
func (a *aging) of(seed uint64) time.Duration {
	part := seed * 0x9e3779b97f4a7c15 >> 40 // Fibonacci hashing: 24 bits that look random
	return a.age - a.age/10 + time.Duration(float64(a.age)/5*float64(part)/(1<<24))
}

// oldAt returns when a connection that began at the given time is too old. The time began and the result are durations
// since clock. A result of zero means never.
func (a *aging) oldAt(began time.Duration, clock time.Time, seed uint64) time.Duration {
	if a.age == 0 {
		return 0
	}
	return max(began, a.since.Sub(clock)) + a.of(seed)
}

// respec replaces the specification. respec reports whether open connections may have to end at another time than
// before.
func (s *service) respec(spec *Service) (sooner bool) {
	old := s.spec.Load()
	if aged := old.MaxAge != spec.MaxAge || old.MaxAgeGrace != spec.MaxAgeGrace; aged {
		since := time.Now() // otherwise all connections that are too old already would end together
		if old.MaxAge == spec.MaxAge {
			since = s.aging.Load().since
		}
		s.aging.Store(&aging{max(spec.MaxAge, 0), spec.maxAgeGrace(), since})
		sooner = true
	}
	s.spec.Store(spec)
	s.setFilters(spec)
	return sooner || old.OnLeave != spec.OnLeave
}
