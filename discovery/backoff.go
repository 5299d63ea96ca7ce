package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff says how long to wait before something that failed is tried again: a random time below a limit that
// doubles. Because it is random over the whole range, the clients of an agent that comes back do not all come at
// once.
type backoff struct {
	limit time.Duration // of the last pause; zero: there was none since the last reset
	until time.Time     // when the last pause ends
}

// pause returns a pause. The limit begins at first and ends at most. If more than most has passed since the last
// pause ended, it begins again.
func (b *backoff) pause(now time.Time, first, most time.Duration) time.Duration {
	if now.Sub(b.until) > most {
		b.reset()
	}
	b.limit = min(max(2*b.limit, first), most)
	pause := rand.N(b.limit) + 1
	b.until = now.Add(pause)
	return pause
}

// reset lets the limit begin again.
func (b *backoff) reset() { b.limit = 0 }

// A bucket bounds how often a watch asks, whatever Consul answers: bucketBurst queries at once, and bucketRate a
// second. A query that brought news counts a tenth, so that a busy service is followed at the pace of its changes.
type bucket struct {
	used float64   // tokens that were taken and have not grown back
	at   time.Time // when used was counted
	paid time.Time // when the bytes of all answers are paid for
}

const (
	bucketRate  = 5.0 // tokens that grow back in a second
	bucketBurst = 10.0
	bucketNews  = 0.9 // tokens that news give back
)

// take takes a token, and returns how long to wait before it may be used.
func (b *bucket) take(now time.Time) time.Duration {
	b.used = max(0, b.used-bucketRate*now.Sub(b.at).Seconds()) + 1
	b.at = now
	return max(0, time.Duration((b.used-bucketBurst)/bucketRate*float64(time.Second)))
}

// news gives most of the last token back, because its query brought news.
func (b *bucket) news() { b.used = max(0, b.used-bucketNews) }

// A watch with long answers asks less often: to read so many bytes a second takes 1 to 5 percent of a processor, and
// the agent has to write them. After a quiet time the next answer is read at once. The pause is maxStale at most.
const (
	bytesPerSecond = 4 << 20
	bytesAtOnce    = 5 * time.Second // after a quiet time, the bytes of so long a time are read at once
)

// pay accounts for an answer with so many bytes.
func (b *bucket) pay(now time.Time, bytes int) {
	if earliest := now.Add(-bytesAtOnce); b.paid.Before(earliest) {
		b.paid = earliest
	}
	b.paid = b.paid.Add(time.Duration(bytes) * time.Second / bytesPerSecond)
	if latest := now.Add(maxStale); b.paid.After(latest) {
		b.paid = latest
	}
}

// rest returns how long it takes until the answers are paid for, maxStale at most.
func (b *bucket) rest(now time.Time) time.Duration { return max(b.paid.Sub(now), 0) }

// jitter returns d, give or take a random part of a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// sleep waits for d, and reports whether it waited to the end. If not, ctx has ended.
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
