package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff tells how long to wait before something that failed is tried again: a random time below a limit that doubles.
// Randomness over the whole range keeps the clients of an agent that comes back from coming back in step.
type backoff struct {
	limit time.Duration // of the pause handed out last; zero: none since the last reset
	until time.Time     // when that pause ends
}

// next returns a pause. Limits begin at first (or go on from where they were, if that is more) and end at most. Who got along
// for longer than most since the last pause begins anew.
func (b *backoff) next(now time.Time, first, most time.Duration) time.Duration {
	if now.Sub(b.until) > most {
		b.reset()
	}
	b.limit = min(max(2*b.limit, first), most)
	pause := rand.N(b.limit) + 1
	b.until = now.Add(pause)
	return pause
}

func (b *backoff) reset() { b.limit = 0 }

// A bucket is the floor under a watch's pace, whatever Consul answers: bucketBurst queries at once, and bucketRate a second. Those that
// brought news count a tenth, so that a busy service is followed at the pace of its changes.
type bucket struct {
	used float64 // tokens taken and not yet grown back
	at   time.Time
	paid time.Time // when the bytes of all answers are paid for
}

const (
	bucketRate  = 5.0
	bucketBurst = 10.0
	bucketNews  = 0.9 // of a token is given back for news
)

// take takes a token and returns how long to wait before using it.
func (b *bucket) take(now time.Time) time.Duration {
	b.used = max(0, b.used-bucketRate*now.Sub(b.at).Seconds()) + 1
	b.at = now
	return max(0, time.Duration((b.used-bucketBurst)/bucketRate*float64(time.Second)))
}

// news says that the query that the last token was taken for was worth it.
func (b *bucket) news() { b.used = max(0, b.used-bucketNews) }

// A watch whose answers are long is asked less often: to read so many bytes takes 1 to 5 percent of a processor, and
// the agent has to write them. What comes after a quiet time is read at once, and the pause is maxStale at most.
const (
	bytesPerSecond = 4 << 20
	bytesAtOnce    = 5 * time.Second // worth of bytes, after a quiet time
)

// pay accounts for an answer of so many bytes.
func (b *bucket) pay(now time.Time, bytes int) {
	if earliest := now.Add(-bytesAtOnce); b.paid.Before(earliest) {
		b.paid = earliest
	}
	b.paid = b.paid.Add(time.Duration(bytes) * time.Second / bytesPerSecond)
	if latest := now.Add(maxStale); b.paid.After(latest) {
		b.paid = latest
	}
}

// rest returns how long to wait until the answers are paid for: maxStale at most.
func (b *bucket) rest(now time.Time) time.Duration { return max(b.paid.Sub(now), 0) }

// jitter returns d give or take a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// sleep waits for d, and tells whether it did so to the end: false means that ctx ended first, or had ended already.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
