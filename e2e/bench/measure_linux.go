package main

import (
	"fmt"
	"time"
)

// measureLimit is how long one measurement may take. Nothing comes near it unless it is broken.
const measureLimit = 30 * time.Second

// settle is what a proxy gets to end what a load left behind, which belongs to the load's price.
const settle = 40 * time.Millisecond

// traffic runs a load of so many units of work, and measures what it cost the proxy.
func (b *bench) traffic(i *instance, work int, perUnit float64, slots []slot) (sample, error) {
	return b.measure(i, work, perUnit, slots, func(*loop, int) error { return nil })
}

// measure does that, and lets count correct what the loop counted.
func (b *bench) measure(i *instance, work int, perUnit float64, slots []slot,
	count func(l *loop, work int) error) (sample, error) {
	l, err := newLoop(work)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if _, ok := slots[0].(*newSlot); ok {
		l.rate = newRate
	}
	pids, err := members(i.group())
	if err != nil {
		return nil, err
	}
	stop := b.profile(i, pids)
	defer stop()
	before, err := usageOf(i.group())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := l.run(slots, measureLimit); err != nil {
		return nil, err
	}
	elapsed := time.Since(began)
	time.Sleep(settle)
	after, err := usageOf(i.group())
	if err != nil {
		return nil, err
	}
	if err := count(l, work); err != nil {
		return nil, err
	}
	if l.errors > 0 {
		b.say("  %s: %d errors, the last: %v", i.target.name, l.errors, errOr(l.lastErr))
	}
	if l.done == 0 {
		return nil, fmt.Errorf("nothing was done: %w", errOr(l.lastErr))
	}
	units := float64(l.done) / perUnit
	return sample{
		mCPU:       micros(after.cpu-before.cpu) / units,
		mSchedstat: micros(after.schedstat-before.schedstat) / units,
		mRate:      units / elapsed.Seconds(),
		mP50:       l.latency.percentile(0.50) / 1e3,
		mP99:       l.latency.percentile(0.99) / 1e3,
		mErrors:    float64(l.errors),
		mRSS:       float64(after.rss),
		mPSS:       float64(after.pss),
		mFDs:       float64(after.fds),
		mThreads:   float64(after.threads),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// watchDescriptors watches how many descriptors a group has, until the function that it returns is called, which
// returns the most.
func watchDescriptors(group int, interval time.Duration) (stop func() int) {
	done, result := make(chan struct{}), make(chan int, 1)
	go countDescriptors(group, interval, done, result)
	return func() int {
		close(done)
		return <-result
	}
}

func countDescriptors(group int, interval time.Duration, done <-chan struct{}, result chan<- int) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	most := 0
	pids, err := members(group)
	for {
		if err == nil {
			n, _ := descriptors(pids) // of a process that ended: none, and the load tells
			most = max(most, n)
		}
		select {
		case <-ticker.C:
		case <-done:
			result <- most
			return
		}
	}
}
