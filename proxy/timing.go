package proxy

import "time"

// limits are how long nothing may move over a TCP connection. Zero: no limit.
type limits struct {
	idle time.Duration // while both directions go on
	half time.Duration // once a direction has ended
}

func (s *Service) limits() limits { return limits{idle: s.idleTimeout(), half: s.halfCloseTimeout()} }

// silence returns the limit for a connection of which so many directions have ended.
func (l limits) silence(ended int) time.Duration {
	if ended > 0 {
		return l.half
	}
	return l.idle
}

// A timing is what time means for a TCP connection at one moment. All instants are by one clock, the loop's or the
// pair's own: how long ago that began.
type timing struct {
	instant, last time.Duration // last: when something moved last
	silence       time.Duration // how long nothing may move; zero: no limit
	old           time.Duration // from when on it is too old; zero: never
	leeway        time.Duration // how long it may look for a moment of quiet then
	asked         bool          // the client was the last to say something
	ended         int           // directions that have ended
}

// An expiry is what is due for a connection.
type expiry int8

const (
	nothingDue  expiry = iota
	stillTaken         // silence, but a peer takes what the kernel still has for it: as if something had moved
	tooSilent          // it ends: nothing has moved for too long
	oldAndQuiet        // it ends: it is too old, and nothing is under way
	tooOld             // it ends: it is too old, and there was no moment of quiet in time
)

// due returns what is due now. It calls settled only for a connection that is too old, to learn whether all that was
// read has arrived, and taking only for a silent one, to learn whether a peer has taken something since the last call.
// Age comes before silence.
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

// isQuiet reports whether the connection has been quiet for quietFor, as far as that shows without a look at the
// kernel's buffers.
func (t *timing) isQuiet() bool { return !t.asked && t.ended == 0 && t.instant-t.last >= quietFor }

// nextLook returns when to call due again. False: never.
func (t *timing) nextLook() (at time.Duration, ok bool) {
	if t.silence > 0 {
		at, ok = t.last+t.silence, true
	}
	if t.old <= 0 {
		return at, ok
	}
	look := t.old
	if t.instant >= t.old { // a moment of quiet is looked for
		look = min(t.instant+quietFor, t.old+t.leeway)
	}
	if ok {
		look = min(at, look)
	}
	return look, true
}

// A peer that has acknowledged nothing of what was sent to it for peerGoneAfter is gone, and its connection ends. Its
// host has vanished, or the way to it. Keep-alive does not find that out while something is on its way, and the kernel
// goes on sending for some 15 minutes (tcp_retries2 in ip-sysctl.rst). Whether a peer answers is looked at every
// peerLookEvery, so it takes up to as much longer until the first look.
//
// TCP_USER_TIMEOUT is no substitute: it also ends the connection of a peer that is well and whose window is closed, as
// that of a download that is paused.
//
// They are variables for tests.
var (
	peerGoneAfter = keepAlive.Idle + time.Duration(keepAlive.Count)*keepAlive.Interval
	peerLookEvery = time.Minute
)

// nextPeerLook returns how long from now to look whether the peers of a connection answer. Waited is for how long one
// of them has not, by the present look; zero: both do.
func nextPeerLook(waited time.Duration) time.Duration {
	if waited <= 0 {
		return peerLookEvery
	}
	return min(peerLookEvery, max(peerGoneAfter-waited, time.Millisecond))
}

// An unsentCount is how many bytes were on their way to both peers of a connection when that was looked at last.
// The kernel does not tell when its buffers empty, and to a peer that reads slowly that may take longer than a limit of
// silence.
type unsentCount int32

// moves notes that n bytes are on their way now, and reports whether some are and their number has changed. The first
// time, the peers are given the benefit of the doubt.
func (u *unsentCount) moves(n int) bool {
	before := *u
	*u = unsentCount(n)
	return *u > 0 && *u != before
}
