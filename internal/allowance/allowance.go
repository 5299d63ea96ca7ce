// Package allowance limits how often something happens, such as a log line: some times at once, and then at a rate.
//
//	var lines allowance.Allowance
//	...
//	if lines.Take(time.Now(), 4, time.Minute) {
//		log.Warn("the disk is full")
//	}
package allowance

import "time"

// An Allowance allows atOnce uses, and then one in each interval every, as the arguments of Take say. The zero
// Allowance is complete. An Allowance is not safe for concurrent use.
type Allowance struct{ spent time.Time } // when the whole allowance is available again

// Take reports whether a use is allowed now, and counts it if so.
func (a *Allowance) Take(now time.Time, atOnce int, every time.Duration) bool {
	from := a.spent
	if from.Before(now) {
		from = now
	}
	if from.Sub(now) > time.Duration(atOnce-1)*every {
		return false
	}
	a.spent = from.Add(every)
	return true
}

// IsComplete reports whether Take would allow all atOnce uses at once now, as it does for the zero Allowance.
func (a *Allowance) IsComplete(now time.Time) bool { return !a.spent.After(now) }
