package proxy

import (
	"testing"
	"time"
)

const (
	ms = time.Millisecond
	s1 = time.Second
)

func TestTimingDue(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	notAsked := func() bool { t.Error("the kernel is asked without need"); return false }
	for _, tt := range []struct {
		name            string
		of              timing
		settled, taking func() bool
		want            expiry
	}{
		{"no limit", timing{instant: 999 * s1}, notAsked, notAsked, nothingDue},
		{"a negative limit is none", timing{instant: 999 * s1, silence: -1, old: -1}, notAsked, notAsked, nothingDue},
		{"not silent for long", timing{instant: 10 * s1, last: 9 * s1, silence: s1 + ms},
			notAsked, notAsked, nothingDue},
		{"silent", timing{instant: 10 * s1, last: 9 * s1, silence: s1}, notAsked, no, tooSilent},
		{"silent, and a peer takes what is left", timing{instant: 10 * s1, last: 9 * s1, silence: s1}, notAsked, yes,
			stillTaken},
		{"not old yet", timing{instant: 10*s1 - ms, old: 10 * s1}, notAsked, notAsked, nothingDue},
		{"old and quiet", timing{instant: 10 * s1, old: 10 * s1, last: 9 * s1, leeway: s1}, yes, notAsked, oldAndQuiet},
		{"old, and something moved just now", timing{instant: 10 * s1, old: 10 * s1, last: 9*s1 + ms, leeway: s1},
			notAsked, notAsked, nothingDue},
		{"old, and bytes are on their way", timing{instant: 10 * s1, old: 10 * s1, leeway: s1},
			no, notAsked, nothingDue},
		{"old, and the client waits for an answer", timing{instant: 10 * s1, old: 10 * s1, leeway: s1, asked: true},
			notAsked, notAsked, nothingDue},
		{"old, and half closed", timing{instant: 10 * s1, old: 10 * s1, leeway: s1, ended: 1}, notAsked, notAsked,
			nothingDue},
		{"old for too long", timing{instant: 11 * s1, old: 10 * s1, leeway: s1, asked: true},
			notAsked, notAsked, tooOld},
		{"quiet in the last moment", timing{instant: 11 * s1, old: 10 * s1, leeway: s1}, yes, notAsked, oldAndQuiet},
		{"old, without grace", timing{instant: 10 * s1, old: 10 * s1, asked: true}, notAsked, notAsked, tooOld},
		{"old and silent", timing{instant: 10 * s1, old: 9 * s1, leeway: 5 * s1, asked: true, silence: s1},
			notAsked, no, tooSilent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.of.due(tt.settled, tt.taking); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTimingNextLook(t *testing.T) {
	const never = -1
	for _, tt := range []struct {
		name string
		of   timing
		want time.Duration
	}{
		{"no limit", timing{instant: s1}, never},
		{"a negative limit is none", timing{instant: s1, silence: -1, old: -1}, never},
		{"silence", timing{instant: 5 * s1, last: 2 * s1, silence: 10 * s1}, 12 * s1},
		{"age", timing{instant: 5 * s1, old: 7 * s1}, 7 * s1},
		{"age before silence", timing{instant: 5 * s1, old: 7 * s1, last: 5 * s1, silence: 3 * s1}, 7 * s1},
		{"silence before age", timing{instant: 5 * s1, old: 9 * s1, last: 5 * s1, silence: 3 * s1}, 8 * s1},
		{"old, looks for a moment of quiet", timing{instant: 9 * s1, old: 7 * s1, leeway: 10 * s1}, 9*s1 + quietFor},
		{"old, and the time for that ends first", timing{instant: 9 * s1, old: 7 * s1, leeway: 2*s1 + ms}, 9*s1 + ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, ok := tt.of.nextLook()
			if !ok {
				at = never
			}
			if at != tt.want {
				t.Errorf("got %v, want %v", at, tt.want)
			}
		})
	}
}

// If due is called at the time that nextLook returns, the connection ends or the next time is later. No connection is
// therefore checked without end.
func TestTimingGoesOn(t *testing.T) {
	no := func() bool { return false }
	for _, of := range []timing{
		{silence: 3 * s1}, {old: 2 * s1, leeway: 5 * s1}, {old: 2 * s1, leeway: 5 * s1, silence: 10 * s1, asked: true},
		{old: 9 * s1, silence: s1}, {old: 1, leeway: 0, ended: 1},
	} {
		looks, end := 0, nothingDue
		for ; end == nothingDue && looks < 20; looks++ {
			at, ok := of.nextLook()
			if !ok || at <= of.instant {
				t.Fatalf("%+v: next look at %v, %v", of, at, ok)
			}
			of.instant = at
			end = of.due(no, no)
		}
		if end == nothingDue {
			t.Errorf("%+v: no end after %d looks", of, looks)
		}
	}
}

func TestUnsentCountMoves(t *testing.T) {
	var u unsentCount
	for i, tt := range []struct {
		n    int
		want bool
	}{{0, false}, {5, true}, {5, false}, {3, true}, {0, false}, {3, true}} {
		if got := u.moves(tt.n); got != tt.want {
			t.Errorf("look %d, %d bytes: got %v, want %v", i, tt.n, got, tt.want)
		}
	}
}

func TestLimitsOfSilence(t *testing.T) {
	for _, tt := range []struct {
		name            string
		of              Service
		whole, halfOver time.Duration
	}{
		{"by default", Service{}, time.Hour, 5 * time.Minute},
		{"never", Service{IdleTimeout: -1, HalfCloseTimeout: -1}, 0, 0},
		{"idle sooner than half-close", Service{IdleTimeout: s1}, s1, s1},
		{"half-close as idle", Service{IdleTimeout: s1, HalfCloseTimeout: -1}, s1, s1},
		{"each", Service{IdleTimeout: 9 * s1, HalfCloseTimeout: 2 * s1}, 9 * s1, 2 * s1},
	} {
		l := tt.of.limits()
		if l.silence(0) != tt.whole || l.silence(1) != tt.halfOver || l.silence(2) != tt.halfOver {
			t.Errorf("%s: got %v and %v, want %v and %v", tt.name, l.silence(0), l.silence(1), tt.whole, tt.halfOver)
		}
	}
}

// A connection's age counts from the moment at which its service got a MaxAge.
func TestOldAt(t *testing.T) {
	clock := time.Now()
	a := &aging{age: 1000 * s1}
	if at := a.oldAt(5*s1, clock, 7); at < 5*s1+900*s1 || at > 5*s1+1100*s1 {
		t.Errorf("got %v, want the age after the begin", at)
	}
	a.since = clock.Add(2000 * s1)
	if at := a.oldAt(5*s1, clock, 7); at < 2900*s1 || at > 3100*s1 {
		t.Errorf("got %v, want the age after the change", at)
	}
	if at := (&aging{}).oldAt(5*s1, clock, 7); at != 0 {
		t.Errorf("without an age: got %v, want never", at)
	}
}

func TestNextPeerLook(t *testing.T) {
	for _, tt := range []struct{ waited, want time.Duration }{
		{0, peerLookEvery},
		{time.Second, peerLookEvery},
		{peerGoneAfter - 10*time.Second, 10 * time.Second}, // not later than peerGoneAfter
		{peerGoneAfter, time.Millisecond},
	} {
		if got := nextPeerLook(tt.waited); got != tt.want {
			t.Errorf("after %v without an answer: got %v, want %v", tt.waited, got, tt.want)
		}
	}
}
