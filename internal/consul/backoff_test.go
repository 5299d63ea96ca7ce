package consul

import (
	"testing"
	"time"
)

func TestBackoffDoublesUpToItsBoundWithFullJitter(t *testing.T) {
	tests := []struct {
		name  string
		first time.Duration
		want  []time.Duration // upper bounds of the pauses
	}{
		{"usual", 100 * time.Millisecond, []time.Duration{100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, 10e9,
			10e9}},
		{"slow", time.Second, []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			longest := make([]time.Duration, len(tt.want))
			for range 200 {
				var b Backoff
				now := time.Unix(1000, 0)
				for i, limit := range tt.want {
					pause := b.Pause(now, tt.first, 10*time.Second)
					if pause <= 0 || pause > limit {
						t.Fatalf("pause %d is %v, want at most %v", i, pause, limit)
					}
					longest[i] = max(longest[i], pause)
					now = now.Add(pause)
				}
			}
			for i, d := range longest {
				if d < tt.want[i]*3/4 {
					t.Errorf("pause %d of 200 runs never longer than %v, want up to %v", i, d, tt.want[i])
				}
			}
		})
	}
}

func TestBackoffBeginsAnewAfterALongCalm(t *testing.T) {
	var b Backoff
	now := time.Unix(1000, 0)
	for range 10 {
		now = now.Add(b.Pause(now, 100*time.Millisecond, 10*time.Second))
	}
	if pause := b.Pause(now.Add(11*time.Second), 100*time.Millisecond, 10*time.Second); pause > 100*time.Millisecond {
		t.Errorf("pause %v", pause)
	}
}

func TestJitterIsATenth(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 2000 {
		d := Jitter(40 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 36*time.Second || most > 44*time.Second || least > 37*time.Second || most < 43*time.Second {
		t.Errorf("between %v and %v", least, most)
	}
	if d := Jitter(0); d != 0 {
		t.Errorf("Jitter of nothing is %v", d)
	}
}
