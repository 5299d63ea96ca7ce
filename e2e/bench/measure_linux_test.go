package main

import (
	"os"
	"testing"
	"time"
)

// What a load needs besides its work costs processor time, and does not count.
func TestWhatIsApartDoesNotCount(t *testing.T) {
	const wasted = 200 * time.Millisecond
	b, i := &bench{options: &options{}, backends: &backends{}}, &instance{target: &target{}, plan: &plan{}}
	var apart spending
	s, err := b.cost(i, 1, 1, func(l *loop) error {
		began := time.Now()
		if err := b.apart(i, l, func() error { return burn(wasted) }); err != nil {
			return err
		}
		l.take()
		l.success(began)
		apart = l.apart
		return nil
	}, asCounted)
	if err != nil {
		t.Fatal(err)
	}
	if apart.others < wasted || apart.elapsed < 2*settle {
		t.Errorf("apart: %v in %v, want %v in %v at least", apart.others, apart.elapsed, wasted, 2*settle)
	}
	if got := s[mMachine]; got > micros(wasted/2) {
		t.Errorf("the load has used %v us, of which %v were apart", got, apart.others)
	}
}

// burn makes this process use so much processor time.
func burn(amount time.Duration) error {
	for start := time.Duration(-1); ; {
		used, err := cpuOf([]int{os.Getpid()})
		switch {
		case err != nil:
			return err
		case start < 0:
			start = used
		case used-start > amount:
			return nil
		}
	}
}
