package proxy

import (
	"math"
	"time"
)

// This is how the portable engine finds descriptors for new clients when there are none left, see budget.

// makeRoom takes a descriptor for one more session of s. If the listener has as many sessions as it may, or if there
// are no descriptors, the session idle longest ends, of those that can.
func (u *udpSocket) makeRoom(s *service) bool {
	for {
		ended, passed := false, false
		if u.sessions.len() < s.spec.Load().maxSessions() {
			if s.share.take(sessionDescriptors) {
				return true
			}
			if from := u.engine.victim(itsFloor, u); from != nil {
				ended, passed = from.evict(s.share, u)
			}
		}
		if !ended {
			ended, passed = u.evict(s.share, u)
		}
		if passed || !ended {
			return passed
		}
	}
}

// reclaim takes the descriptors of a TCP connection for to, from UDP services that have more than an equal part. It
// returns false if there are none, or if to would have more than an equal part.
func (e *portable) reclaim(to *share) bool {
	if !to.belowEqual(pairDescriptors) {
		return false
	}
	for got := int64(0); got < pairDescriptors; {
		ended, passed := false, false
		if from := e.victim(equalPart, nil); from != nil {
			ended, passed = from.evict(to, nil)
		}
		if passed {
			got++
		} else if !ended {
			to.release(got)
			return false
		}
	}
	return true
}

// victim returns the socket whose oldest session should end for others: the one idle longest, or nearly, see perSearch,
// of those whose services exceed m. It is nil if none was found. The socket own, unless it is nil, is looked at in any
// case.
func (e *portable) victim(m bound, own *udpSocket) *udpSocket {
	var found *udpSocket
	oldest := time.Duration(math.MaxInt64)
	consider := func(u *udpSocket) bool {
		if !u.service.Load().share.exceeds(m) || u != own && u.pausing.Load() != nil {
			return false
		}
		x := u.sessions.oldest()
		if x != nil && time.Duration(x.last.Load()) < oldest {
			found, oldest = u, time.Duration(x.last.Load())
		}
		return x != nil
	}
	if own != nil {
		consider(own)
	}
	e.searching.Lock()
	defer e.searching.Unlock()
	if e.found != nil {
		consider(e.found)
	}
	e.udp.scan(&e.cursor, time.Since(e.began), found != nil, consider)
	e.found = found
	return found
}

// evict ends the session idle longest. It tells whether there was one, and whether to has its descriptor now. The
// caller is the reader of own, or of no socket if that is nil.
func (u *udpSocket) evict(to *share, own *udpSocket) (ended, passed bool) {
	if u != own {
		if !u.expiring.TryLock() { // what is about to be another process's must not end
			return false, false
		}
		defer u.expiring.Unlock()
	}
	oldest := u.sessions.oldest()
	if oldest == nil {
		return false, false
	}
	u.sessions.remove(oldest)
	if !u.close(oldest, endEvicted) {
		return true, false
	}
	if !oldest.spent.Load() {
		oldest.service.at(0).sessionsEvicted.Add(1)
	}
	return true, oldest.service.share.pass(to, sessionDescriptors)
}

// freePort ends the session idle longest, of those that can end for s, for the sake of the port that the system gave
// to its socket. It returns false if there is none.
func (u *udpSocket) freePort(s *service) bool {
	from := u.engine.victim(itsPorts, u)
	if from == nil {
		from = u
	}
	ended, passed := from.evict(s.share, u)
	if passed {
		s.share.release(sessionDescriptors) // the new session has one
	}
	return ended
}
