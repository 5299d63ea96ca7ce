package proxy

import "time"

// limits bound the time in which no bytes move over a TCP connection. A zero limit means that there is no limit.
type limits struct {
	idle time.Duration // limit while both directions are open
	half time.Duration // limit after one direction has ended
}

func (s *Service) limits() limits { return limits{idle: s.idleTimeout(), half: s.halfCloseTimeout()} }

// silence returns the limit for a connection of which ended directions have ended.
func (l limits) silence(ended int) time.Duration {
	if ended > 0 {
		return l.half
	}
	return l.idle
}

// A timing holds the times of a TCP connection at one moment. All instants are durations since a common origin: the
// start of the loop or of the pair.
type timing struct {
	instant, last time.Duration // the present time, and when bytes last moved
	silence       time.Duration // how long no bytes may move; zero means no limit
	old           time.Duration // when the connection is too old; zero means never
	leeway        time.Duration // how long after old to wait for a quiet moment
	asked         bool          // whether the client was the last to send
	ended         int           // number of directions that have ended
}

// An expiry is what due has found: whether a connection must end, and why.
type expiry int8

const (
	nothingDue  expiry = iota
	stillTaken         // no bytes move, but a peer still takes bytes from the kernel; counts as movement
	tooSilent          // the connection ends: no bytes have moved for too long
	oldAndQuiet        // the connection ends: it is too old, and quiet
	tooOld             // the connection ends: it is too old, and was not quiet in time
)

// due returns whether the connection must end now. Age is checked before silence. due calls settled only if the
// connection is too old; settled reports whether all bytes have arrived. due calls taking only if the connection is
// silent; taking reports whether a peer has taken bytes since the last call.
func (t *timing) due(settled, taking func() bool) expiry {
	if t.old > 0 && t.instant >= t.old {
		switch {
		case t.isQuiet() && settled():
			return oldAndQuiet
		case t.instant >= t.old+t.leeway:
			return tooOld
		}
	}
	switch {
	case t.silence <= 0 || t.instant-t.last < t.silence:
		return nothingDue
	case taking():
		return stillTaken
	}
	return tooSilent
}

// isQuiet reports whether the connection has been quiet for quietFor. isQuiet does not check the kernel's buffers.
func (t *timing) isQuiet() bool { return !t.asked && t.ended == 0 && t.instant-t.last >= quietFor }

// nextLook returns when to call due again. A result of false means never.
func (t *timing) nextLook() (at time.Duration, ok bool) {
	if t.silence > 0 {
		at, ok = t.last+t.silence, true
	}
	if t.old <= 0 {
		return at, ok
	}
	look := t.old
	if t.instant >= t.old { // waiting for a quiet moment
		look = min(t.instant+quietFor, t.old+t.leeway)
	}
	if ok {
		look = min(at, look)
	}
	return look, true
}

// peerGoneAfter is how long a peer may acknowledge nothing of what was sent to it. A peer that is silent for so long
// has lost its host or its route, so the connection ends. Keep-alive does not detect a vanished peer while sent data is
// unacknowledged, and the kernel retransmits for some 15 minutes (tcp_retries2 in ip-sysctl.rst). Peers are checked
// every peerLookEvery, so detection may take that much longer.
//
// TCP_USER_TIMEOUT cannot replace this check: it also ends the connection of a healthy peer whose window is closed,
// such as a paused download.
//
// Both are variables so that tests can change them.
var (
	peerGoneAfter = keepAlive.Idle + time.Duration(keepAlive.Count)*keepAlive.Interval
	peerLookEvery = time.Minute
)

// nextPeerLook returns the time until the next check whether the peers of a connection answer. waited is how long one
// peer has not answered; zero means that both answer.
func nextPeerLook(waited time.Duration) time.Duration {
	if waited <= 0 {
		return peerLookEvery
	}
	return min(peerLookEvery, max(peerGoneAfter-waited, time.Millisecond))
}

// An unsentCount is the number of unacknowledged bytes on both sides of a connection at the last check. The kernel does
// not report when its buffers empty. A slow reader may need longer to empty them than the idle timeout.
type unsentCount int32

// moves stores the new count n, and reports whether n is above zero and has changed. The first call with an n above
// zero reports true: the peers may still be reading.
func (u *unsentCount) moves(n int) bool {
	before := *u
	*u = unsentCount(n)
	return *u > 0 && *u != before
}
