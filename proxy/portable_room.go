package proxy

import (
	"math"
	"time"
)

// This file finds file descriptors for new clients when none are left, see budget.

// makeRoom takes a descriptor for one more session of s. At the listener's limit of sessions, or without free
// descriptors, another session ends for the new one. Of the sessions that may end, the one that has been idle longest
// is chosen.
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

// reclaim takes the descriptors of a TCP connection for to. reclaim ends sessions of UDP services that have more than
// an equal part. reclaim returns false if no session may end, or if the share to would get more than an equal part.
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

// victim returns the socket whose oldest session should end for another client, or nil if none was found. victim
// considers sockets whose services exceed m, and picks nearly the longest idle session; see perSearch. victim always
// considers own, unless own is nil.
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

// evict ends the session that has been idle longest. ended reports whether there was one; passed reports whether to now
// has its descriptor. The caller is the reader of own; nil means that it reads no socket.
func (u *udpSocket) evict(to *share, own *udpSocket) (ended, passed bool) {
	if u != own {
		if !u.expiring.TryLock() { // a session that is being handed over must not end
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

// freePort ends a session so that the kernel gets back its local port. Of all sessions that may end for s, freePort
// ends the session that has been idle longest. freePort returns false if no session may end.
func (u *udpSocket) freePort(s *service) bool {
	from := u.engine.victim(itsPorts, u)
	if from == nil {
		from = u
	}
	ended, passed := from.evict(s.share, u)
	if passed {
		s.share.release(sessionDescriptors) // the new session already has a descriptor
	}
	return ended
}
