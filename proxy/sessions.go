package proxy

import (
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/lb"
)

// These are the decisions about UDP sessions. The engines keep sessions in their own ways, and ask here.

// sessionIdle returns how long a session may be silent. Draining: its listener is about to be closed.
func (s *Service) sessionIdle(draining bool) time.Duration {
	if draining {
		return min(s.idleTimeout(), drainQuiet)
	}
	return s.idleTimeout()
}

// silentSession returns why a session ends that has been silent for as long as it may.
func silentSession(refused, draining bool) endReason {
	switch {
	case refused:
		return endRefused
	case draining:
		return endDrained
	}
	return endIdle
}

// replaces returns why the client of a session gets another one for its next datagram, which is for s. It is notEnded
// if the session goes on. The session is of the service of, with endpoint m, and refused if that has refused a
// datagram.
func (s *service) replaces(of *service, m *lb.Member, refused bool) endReason {
	switch {
	case refused:
		return endRefused
	case of != s:
		return endReplaced
	case m.Left():
		return endLeft
	case m.Ejected():
		return endEjected
	}
	return notEnded
}

// isFull reports whether a session has had as many datagrams of its client as it may.
func (s *Service) isFull(requests int64) bool { return s.Requests > 0 && requests >= int64(s.Requests) }

// isAnswered reports whether all answers have come that the client of a session may expect after so many datagrams.
// Where it is not known how many those are, it is false.
func (s *Service) isAnswered(requests, answers int64) bool {
	return s.Responses > 0 && answers >= int64(s.Responses)*requests
}

// isOneWay reports whether no answers are expected: a session is over when all that it may have is sent.
func (s *Service) isOneWay() bool { return s.Responses < 0 }

// adopts reports whether a listener that has so many sessions may take one more from another process. A one-way session
// is not taken: a new one serves its client as well.
func (s *Service) adopts(sessions int64) bool {
	return !s.isOneWay() && sessions < int64(s.maxSessions())
}

// A sessionOpener is an engine's part in the begin of a session.
type sessionOpener struct {
	takeRoom func() bool              // takes what a session needs; false: there is none left
	giveRoom func()                   // undoes takeRoom
	attach   func(m *lb.Member) error // makes a session with m, which has room
}

// beginSession begins a session for the client at src, whose first datagram had so many hops left (0: that is not
// known). It tries endpoints that are not in tried, and adds to these. False: there is no session, and why has been
// said. If counted is true, the end of the session calls uncount.
func (s *service) beginSession(src netip.AddrPort, hops uint8, tried *lb.Tried, o sessionOpener) (counted, ok bool) {
	if hops == 1 {
		s.outOfHops(src)
		return false, false
	}
	counted, ok = s.countClient(src)
	switch {
	case !ok:
		s.unserved(src, errClientLimit)
		return false, false
	case !o.takeRoom():
		s.unserved(src, errOutOfDescriptors)
	case s.connectSession(src, tried, o.attach):
		return counted, true
	default:
		o.giveRoom()
	}
	if counted {
		s.uncount(src)
	}
	return false, false
}

// connectSession connects a session to the next endpoint that can be. False: there is none, and why has been said.
func (s *service) connectSession(src netip.AddrPort, tried *lb.Tried, connect func(*lb.Member) error) bool {
	var errs *multierror.Error
	for range maxDials {
		m, err := s.pick(src, *tried)
		if errors.Is(err, lb.ErrMissingEndpoints) && tried.Len() > 0 {
			*tried = lb.Tried{} // an endpoint that refused before may be back
			m, err = s.pick(src, *tried)
		}
		if err != nil {
			s.unserved(src, whyNone(errs, err))
			return false
		}
		if err = connect(m); err == nil {
			return true
		}
		s.dialFailed(m, err)
		errs = multierror.Append(errs, err)
		m.Done()
		tried.Add(m.ID)
	}
	s.unserved(src, whyNone(errs, lb.ErrMissingEndpoints))
	return false
}
