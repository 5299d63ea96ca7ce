package discovery

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
				var b backoff
				now := time.Unix(1000, 0)
				for i, limit := range tt.want {
					pause := b.pause(now, tt.first, 10*time.Second)
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
	var b backoff
	now := time.Unix(1000, 0)
	for range 10 {
		now = now.Add(b.pause(now, 100*time.Millisecond, 10*time.Second))
	}
	if pause := b.pause(now.Add(11*time.Second), 100*time.Millisecond, 10*time.Second); pause > 100*time.Millisecond {
		t.Errorf("pause %v", pause)
	}
}

func TestBucketAllowsABurstAndThenFiveASecond(t *testing.T) {
	var b bucket
	now := time.Unix(1000, 0)
	for i := range 10 {
		if d := b.take(now); d != 0 {
			t.Errorf("token %d after %v, want at once", i, d)
		}
	}
	for i := 1; i <= 4; i++ {
		if got, want := b.take(now), time.Duration(i)*time.Second/5; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if d := b.take(now.Add(time.Hour)); d != 0 {
		t.Errorf("after an hour: %v", d)
	}
}

func TestNewsCostATenthOfAToken(t *testing.T) {
	var b bucket
	now := time.Unix(1000, 0)
	for i := range 80 {
		if d := b.take(now); d != 0 {
			t.Fatalf("query %d with news after %v, want at once", i, d)
		}
		b.news()
	}
}

func TestLongAnswersArePaidFor(t *testing.T) {
	const mega = 1 << 20
	var b bucket
	now := time.Unix(1000, 0)
	wants := func(want time.Duration) {
		t.Helper()
		if got := b.rest(now); got.Round(time.Millisecond) != want {
			t.Errorf("%v to wait, want %v", got, want)
		}
	}
	wants(0)
	b.pay(now, 10*mega) // 2.5 s worth
	wants(0)
	b.pay(now, 10*mega)
	wants(0)
	b.pay(now, 10*mega)
	wants(2500 * time.Millisecond)
	now = now.Add(2500 * time.Millisecond)
	wants(0)
	b.pay(now, 64*mega) // the longest answer allowed
	wants(maxStale)
	b.pay(now, 64*mega)
	wants(maxStale) // the pause does not add up
	now = now.Add(2 * maxStale)
	b.pay(now, 10*mega)
	wants(0)
	for range 1000 {
		b.pay(now, 4096)
	}
	wants(0)
}

func TestJitterIsATenth(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 2000 {
		d := jitter(40 * time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < 36*time.Second || most > 44*time.Second || least > 37*time.Second || most < 43*time.Second {
		t.Errorf("between %v and %v", least, most)
	}
	if d := jitter(0); d != 0 {
		t.Errorf("jitter of nothing is %v", d)
	}
}
