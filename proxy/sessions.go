package proxy

import (
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/lictor-proxy/lictor/lb"
)

// This file makes the decisions about UDP sessions for both engines. Each engine stores its sessions in its own way.

// sessionIdle returns how long a session may be idle. draining means that its listener is about to close.
func (s *Service) sessionIdle(draining bool) time.Duration {
	if draining {
		return min(s.idleTimeout(), drainQuiet)
	}
	return s.idleTimeout()
}

// silentSession returns why a session ends that has been idle for too long.
func silentSession(refused, draining bool) endReason {
	switch {
	case refused:
		return endRefused
	case draining:
		return endDrained
	}
	return endIdle
}

// replaces returns why a client needs a new session for its next datagram, which is for s. replaces returns notEnded if
// the present session goes on. The present session belongs to the service named of, and its endpoint is m. refused
// means that m has refused a datagram.
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

// isFull reports whether a session has received all requests that it may have.
func (s *Service) isFull(requests int64) bool { return s.Requests > 0 && requests >= int64(s.Requests) }

// isAnswered reports whether all expected answers to the given number of requests have come. isAnswered returns false
// if the number of answers is not known.
func (s *Service) isAnswered(requests, answers int64) bool {
	return s.Responses > 0 && answers >= int64(s.Responses)*requests
}

// whyComplete returns why a session ends that takes no more datagrams. If no answer is the last one, it was idle.
func (s *Service) whyComplete() endReason {
	if s.Responses > 0 {
		return endAnswered
	}
	return endIdle
}

// isOneWay reports whether no answers are expected. A one-way session ends when all its requests are sent.
func (s *Service) isOneWay() bool { return s.Responses < 0 }

// sharesSockets reports whether sessions of several clients may use one socket.
func (s *Service) sharesSockets() bool { return s.isOneWay() && !s.Transparent }

// adopts reports whether a listener with the given number of sessions may take one more from another process. One-way
// sessions are not adopted, because a new session serves the client as well.
func (s *Service) adopts(sessions int64) bool {
	return !s.isOneWay() && sessions < int64(s.maxSessions())
}

// A sessionOpener holds what an engine does to open a session.
type sessionOpener struct {
	takeRoom func() bool              // takes a descriptor and a place; returns false if there is none
	giveRoom func()                   // undoes takeRoom
	attach   func(m *lb.Member) error // opens a session with m after takeRoom
}

// beginSession begins a session for the client at src. hops is the hop limit of its first datagram; 0 means unknown.
// beginSession skips the endpoints in tried, and adds those that fail. If ok is false, there is no session and the
// reason has been recorded. If counted is true, the caller must call uncount when the session ends.
func (s *service) beginSession(src netip.AddrPort, hops uint8, tried *lb.Tried, o sessionOpener) (counted, ok bool) {
	if !s.mayCome(src.Addr()) {
		s.unserved(src, errNotAllowed)
		return false, false
	}
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

// connectSession connects a session to the next endpoint that can be reached. If it returns false, no endpoint could be
// reached and the reason has been recorded.
func (s *service) connectSession(src netip.AddrPort, tried *lb.Tried, connect func(*lb.Member) error) bool {
	var errs *multierror.Error
	for range maxDials {
		m, err := s.pick(src, *tried)
		if errors.Is(err, lb.ErrMissingEndpoints) && tried.Len() > 0 {
			*tried = lb.Tried{} // an endpoint that refused before may have recovered
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
