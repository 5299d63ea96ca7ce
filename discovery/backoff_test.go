package discovery

import (
	"testing"
	"time"
)

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
