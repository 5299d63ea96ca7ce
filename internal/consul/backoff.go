package consul

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff says how long to wait before a failed request is repeated. Each pause is a random time below a limit that
// doubles. The pause is random over the whole range, so that clients of a returning agent do not all connect at once.
// The zero Backoff is ready to use. A Backoff is not safe for concurrent use.
type Backoff struct {
	limit time.Duration // limit of the last pause; zero: no pause since the last reset
	until time.Time     // when the last pause ends
}

// Pause returns the next pause. The limit begins at first and grows to most. If more than most has passed since the end
// of the last pause, the limit begins at first again.
func (b *Backoff) Pause(now time.Time, first, most time.Duration) time.Duration {
	if now.Sub(b.until) > most {
		b.Reset()
	}
	b.limit = min(max(2*b.limit, first), most)
	pause := rand.N(b.limit) + 1
	b.until = now.Add(pause)
	return pause
}

// Reset makes the limit of the next pause begin at its first value.
func (b *Backoff) Reset() { b.limit = 0 }

// Jitter returns d, plus or minus a random part of up to a tenth.
func Jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// Sleep waits for d, or until early is closed, and reports whether ctx has not ended meanwhile. A nil early is never
// closed. A d of zero or less does not wait.
func Sleep(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-early:
	}
	return true
}
