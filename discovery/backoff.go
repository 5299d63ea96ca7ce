package discovery

import (
	"time"
)

// A bucket limits how often a watch sends queries: bucketBurst queries at once, and bucketRate queries a second. A
// query with a new answer costs only a tenth of a token, so that a busy service is followed at the pace of its changes.
type bucket struct {
	used float64   // tokens taken and not yet returned
	at   time.Time // when used was last updated
	paid time.Time // when the bytes of all answers will be paid for
}

const (
	bucketRate  = 5.0 // tokens that return in a second
	bucketBurst = 10.0
	bucketNews  = 0.9 // part of a token that a new answer gives back
)

// take takes a token, and returns how long to wait before the token may be used.
func (b *bucket) take(now time.Time) time.Duration {
	b.used = max(0, b.used-bucketRate*now.Sub(b.at).Seconds()) + 1
	b.at = now
	return max(0, time.Duration((b.used-bucketBurst)/bucketRate*float64(time.Second)))
}

// news gives most of the last token back, because its query had a new answer.
func (b *bucket) news() { b.used = max(0, b.used-bucketNews) }

// A watch with long answers sends fewer queries, because reading bytesPerSecond takes 1 to 5 percent of a processor,
// and the agent must write these bytes. After a quiet time, the next answer is read at once. The pause is maxStale at
// most.
const (
	bytesPerSecond = 4 << 20
	bytesAtOnce    = 5 * time.Second // after a quiet time, a watch may read the bytes of this much time at once
)

// pay counts the bytes of an answer.
func (b *bucket) pay(now time.Time, bytes int) {
	if earliest := now.Add(-bytesAtOnce); b.paid.Before(earliest) {
		b.paid = earliest
	}
	b.paid = b.paid.Add(time.Duration(bytes) * time.Second / bytesPerSecond)
	if latest := now.Add(maxStale); b.paid.After(latest) {
		b.paid = latest
	}
}

// rest returns the time until the bytes of all answers are paid for. rest is maxStale at most.
func (b *bucket) rest(now time.Time) time.Duration { return max(b.paid.Sub(now), 0) }
