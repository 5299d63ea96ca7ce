package allowance

import (
	"testing"
	"time"
)

func TestAllowance(t *testing.T) {
	var a Allowance
	begin := time.Unix(1, 0)
	for i, tt := range []struct {
		after    time.Duration
		allowed  bool
		complete bool // afterwards
	}{
		{0, true, false}, {0, true, false}, {0, true, false}, {0, false, false}, {59 * time.Second, false, false},
		{time.Minute, true, false}, {time.Minute, false, false}, {4 * time.Minute, true, false},
		{5 * time.Minute, true, false},
	} {
		now := begin.Add(tt.after)
		if got := a.Take(now, 3, time.Minute); got != tt.allowed || a.IsComplete(now) != tt.complete {
			t.Errorf("use %d after %v: got %v, want %v", i, tt.after, got, tt.allowed)
		}
	}
	if now := begin.Add(7 * time.Minute); !a.IsComplete(now) {
		t.Error("the allowance is not complete after a long pause")
	}
}
