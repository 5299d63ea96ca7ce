package proxy

import (
	"testing"
	"time"
	"unsafe"
)

// stepped returns t as if the system clock had been stepped. Only the wall clock of t changes: the bits of its field
// wall above the 30 bits of the nanoseconds are seconds.
func stepped(t time.Time, step time.Duration) time.Time {
	layout := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	layout.wall += uint64(int64(step/time.Second)) << 30
	return t
}

// After a line the log is silent for reportEvery, even if the system clock is stepped.
func TestReporterWithASteppedClock(t *testing.T) {
	for _, step := range []time.Duration{0, -time.Hour, time.Hour} {
		var r reporter
		now := time.Now()
		if moved := stepped(now, step); moved.Sub(now) != 0 || moved.Round(0).Sub(now.Round(0)) != step {
			t.Fatalf("a time that was stepped by %v: %v", step, moved)
		}
		for _, tt := range []struct {
			at   time.Time
			want bool
		}{
			{now, true},
			{stepped(now.Add(reportEvery-1), step), false},
			{stepped(now.Add(reportEvery), step), true},
			{stepped(now.Add(reportEvery+1), step), false},
		} {
			if got := r.isDue(tt.at); got != tt.want {
				t.Errorf("step %v: got %v after %v, want %v", step, got, tt.at.Sub(now), tt.want)
			}
		}
	}
}
