package main

import (
	"fmt"
	"os"
	"time"
)

// measureLimit is the timeout of one measurement. Only a broken measurement reaches it.
const measureLimit = 30 * time.Second

// settle is the time that a proxy gets to finish the work of a load. That work belongs to the load's cost.
const settle = 40 * time.Millisecond

// traffic runs a load of work units and measures its cost to the proxy.
func (b *bench) traffic(i *instance, work int, perUnit float64, slots []slot) (sample, error) {
	return b.measure(i, work, perUnit, slots, func(*loop, int) error { return nil })
}

// measure runs a load like traffic, and lets count correct the numbers of the loop.
func (b *bench) measure(i *instance, work int, perUnit float64, slots []slot,
	count func(l *loop, work int) error) (sample, error) {
	return b.cost(i, work, perUnit, func(l *loop) error {
		if _, ok := slots[0].(*newSlot); ok {
			l.rate = newRate
		}
		return l.run(slots, measureLimit)
	}, count)
}

// cost measures what a run costs that does work units of the loop, and lets count correct the numbers of the loop.
func (b *bench) cost(i *instance, work int, perUnit float64, run func(*loop) error,
	count func(l *loop, work int) error) (sample, error) {
	l, err := newLoop(work)
	if err != nil {
		return nil, err
	}
	defer l.close()
	stop := b.profile(i)
	defer stop()
	before, err := i.usage()
	if err != nil {
		return nil, err
	}
	othersBefore, err := b.othersTime()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := run(l); err != nil {
		return nil, err
	}
	elapsed := time.Since(began)
	time.Sleep(settle)
	others, err := b.othersTime() // before usage, which takes this process many milliseconds
	if err != nil {
		return nil, err
	}
	after, err := i.usage()
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
	s := sample{
		mMachine: micros(others-othersBefore+after.cpu-before.cpu) / units,
		mRate:    units / elapsed.Seconds(),
		mP50:     l.latency.percentile(0.50) / 1e3,
		mP99:     l.latency.percentile(0.99) / 1e3,
		mLongest: l.latency.percentile(1) / 1e3,
		mErrors:  float64(l.errors),
	}
	if i.process != nil {
		s[mCPU] = micros(after.cpu-before.cpu) / units
		s[mSchedstat] = micros(after.schedstat-before.schedstat) / units
		s[mRSS], s[mPSS] = float64(after.rss), float64(after.pss)
		s[mFDs], s[mThreads] = float64(after.fds), float64(after.threads)
	}
	return s, nil
}

// othersTime returns the processor time of the load generator and the backends.
func (b *bench) othersTime() (time.Duration, error) {
	pids := []int{os.Getpid()}
	for _, p := range b.backends.processes {
		pids = append(pids, p.Pid())
	}
	return cpuOf(pids)
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// watchDescriptors samples the number of descriptors of a process group. The function that it returns stops the
// sampling and returns the maximum.
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
			n, _ := descriptors(pids) // zero for a process that has ended; the load notices that
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
