package proxy

import (
	"testing"
	"time"
)

// Timers fire by the latest look that found everything. A loop that does not catch up fires its timers late.
func TestHorizon(t *testing.T) {
	type turn struct {
		before time.Duration
		all    bool
		want   time.Duration
	}
	for _, tt := range []struct {
		name  string
		turns []turn
	}{
		{"each turn finds all", []turn{{1, true, 1}, {5, true, 5}, {9, true, 9}}},
		{"one turn leaves something", []turn{{1, true, 1}, {5, false, 1}, {9, true, 9}}},
		{"no turn finds all", []turn{{1, true, 1}, {2, false, 1}, {3, false, 1}, {4, false, 2}, {5, false, 2},
			{6, false, 2}, {7, false, 5}}},
		{"the count begins again", []turn{{1, false, 0}, {2, false, 0}, {3, true, 3}, {4, false, 3}, {5, false, 3},
			{6, false, 4}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h horizon
			for i, one := range tt.turns {
				if h.turned(one.before, one.all, 3); h.at != one.want {
					t.Errorf("after turn %d: got %d, want %d", i, h.at, one.want)
				}
			}
		})
	}
}
