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
	before, err := b.read(i)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := run(l); err != nil {
		return nil, err
	}
	elapsed := time.Since(began) - l.apart.elapsed
	time.Sleep(settle)
	after, err := b.read(i)
	if err != nil {
		return nil, err
	}
	used := after.since(before).less(l.apart)
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
		mMachine: micros(used.others+used.cpu) / units,
		mRate:    units / elapsed.Seconds(),
		mP50:     l.latency.percentile(0.50) / 1e3,
		mP99:     l.latency.percentile(0.99) / 1e3,
		mLongest: l.latency.percentile(1) / 1e3,
		mErrors:  float64(l.errors),
	}
	if i.process != nil {
		s[mCPU] = micros(used.cpu) / units
		s[mSchedstat] = micros(used.schedstat) / units
		s[mRSS], s[mPSS] = float64(after.rss), float64(after.pss)
		s[mFDs], s[mThreads] = float64(after.fds), float64(after.threads)
	}
	return s, nil
}

// apart runs what a load needs, and is not its work. Its cost does not count for the load of l, nor does the time that
// it takes. What the proxy does for work before has ended when apart begins, and what it does for apart ends before
// apart does.
func (b *bench) apart(i *instance, l *loop, do func() error) error {
	began := time.Now()
	time.Sleep(settle)
	before, err := b.read(i)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	time.Sleep(settle)
	after, err := b.read(i)
	if err != nil {
		return err
	}
	used := after.since(before)
	used.elapsed = time.Since(began)
	l.apart = l.apart.plus(used)
	return nil
}

// A reading says what was used until a moment.
type reading struct {
	usage
	others, othersAfter time.Duration // processor time of the load generator and the backends, before and after usage
}

// read measures a proxy and the others.
func (b *bench) read(i *instance) (r reading, err error) {
	if r.others, err = b.othersTime(); err != nil {
		return r, err
	}
	if r.usage, err = i.usage(); err != nil { // which takes this process many milliseconds
		return r, err
	}
	r.othersAfter, err = b.othersTime()
	return r, err
}

// A spending is what was used between two readings.
type spending struct {
	cpu, schedstat time.Duration // of the proxy, see usage
	others         time.Duration // see reading
	elapsed        time.Duration // how long it took
}

// since returns what was used since an earlier reading, without the time that it took.
func (r reading) since(before reading) spending {
	return spending{cpu: r.cpu - before.cpu, schedstat: r.schedstat - before.schedstat,
		others: r.others - before.othersAfter}
}

func (s spending) plus(o spending) spending {
	return spending{s.cpu + o.cpu, s.schedstat + o.schedstat, s.others + o.others, s.elapsed + o.elapsed}
}

func (s spending) less(o spending) spending {
	return s.plus(spending{-o.cpu, -o.schedstat, -o.others, -o.elapsed})
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
