package proxy

import (
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// OnLeave says how long TCP connections may go on when their endpoint has left its service for good, for each reason
// that it may have. Zero: for as long as they like. Negative: not at all, they are cut.
type OnLeave struct {
	Deregistered, Critical, Unmatched time.Duration
}

// grace returns how long connections may go on if one of the reasons why is the true one: the longest that it could
// be. False: for as long as they like.
func (o OnLeave) grace(why lb.Reasons) (grace time.Duration, ends bool) {
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

// cutOff is when connections to m are to be cut because it has left; false: they are not.
func (s *service) cutOff(m *lb.Member) (at time.Time, ends bool) {
	leave := m.Gone()
	if leave == nil {
		return at, false
	}
	grace, ends := s.spec.Load().OnLeave.grace(leave.Why)
	return leave.At.Add(grace), ends
}

// isCutOff tells whether connections to m are to be cut now.
func (s *service) isCutOff(m *lb.Member) bool {
	at, ends := s.cutOff(m)
	return ends && !time.Now().Before(at)
}

// An aging says when connections have grown too old. It does not change; a service gets another one.
type aging struct {
	age   time.Duration // give or take a tenth; zero: never
	grace time.Duration // on top of that, to wait for a moment of quiet
	since time.Time     // no connection began to age before
}

// quietFor is how long nothing may move for a connection to be quiet. Besides, the endpoint must have had the last
// word, so that nobody waits for an answer, as far as one can tell who does not look into the bytes.
const quietFor = time.Second

// of is the age of the connection with this seed. Those that began together should not end together.
func (a *aging) of(seed uint64) time.Duration {
	part := seed * 0x9e3779b97f4a7c15 >> 40 // Fibonacci hashing: 24 bits that look random
	return a.age - a.age/10 + time.Duration(float64(a.age)/5*float64(part)/(1<<24))
}

// oldAt returns when a connection is too old that began at the given time, by a clock that began at clock. Zero: never.
func (a *aging) oldAt(began time.Duration, clock time.Time, seed uint64) time.Duration {
	if a.age == 0 {
		return 0
	}
	return max(began, a.since.Sub(clock)) + a.of(seed)
}

// respec makes spec the specification, and tells whether connections that are open may have to end at another time
// than before.
func (s *service) respec(spec *Service) (sooner bool) {
	old := s.spec.Load()
	if aged := old.MaxAge != spec.MaxAge || old.MaxAgeGrace != spec.MaxAgeGrace; aged {
		since := time.Now() // else all that are older by now would end together
		if old.MaxAge == spec.MaxAge {
			since = s.aging.Load().since
		}
		s.aging.Store(&aging{max(spec.MaxAge, 0), spec.maxAgeGrace(), since})
		sooner = true
	}
	s.spec.Store(spec)
	return sooner || old.OnLeave != spec.OnLeave
}
