//go:build unix

package testpatroni

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Pauses of the writers.
const (
	writePause = 20 * time.Millisecond // between two writes
	retryPause = 50 * time.Millisecond // between an error and the next connection
)

// Writers write rows to the primary through one address. Each writer has one connection, and opens a new one after an
// error.
type Writers struct {
	via    string
	addr   string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	last  []time.Time     // when each writer's last write succeeded, or when counting began
	gap   []time.Duration // each writer's longest time without a successful write
	acked map[string]bool // rows that PostgreSQL has acknowledged
	tally Tally
}

// A Tally is what the writers experienced since the last Reset.
type Tally struct {
	Outage   time.Duration // longest time between two successful writes of one writer
	Writes   int
	ReadOnly int // writes on a server in recovery
	Errors   int // all other errors
	Lost     int // acknowledged writes that the primary lacks; set by Cluster.Lost
	Log      []Failure
}

// A Failure is one error of a writer.
type Failure struct {
	Time   time.Time
	Writer int
	Err    error
}

// StartWriters starts n writers, which write to the table of Cluster.Prepare through addr. Stop stops them.
func StartWriters(via, addr string, n int) *Writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writers{via: via, addr: addr, cancel: cancel, last: make([]time.Time, n), gap: make([]time.Duration, n)}
	w.Reset()
	for i := range n {
		w.wg.Go(func() { w.run(ctx, i) })
	}
	return w
}

// Addr returns the address that the writers use.
func (w *Writers) Addr() string { return w.addr }

// Stop stops the writers, and returns when they have ended.
func (w *Writers) Stop() {
	w.cancel()
	w.wg.Wait()
}

// Reset starts the counts from zero.
func (w *Writers) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.last {
		w.last[i], w.gap[i] = time.Now(), 0
	}
	w.acked, w.tally = map[string]bool{}, Tally{}
}

// Tally returns the counts so far. A writer's present time without a successful write counts too.
func (w *Writers) Tally() Tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tally
	for i := range w.last {
		t.Outage = max(t.Outage, w.gap[i], time.Since(w.last[i]))
	}
	return t
}

// Working reports whether every writer has written since the given time.
func (w *Writers) Working(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, last := range w.last {
		if !last.After(since) {
			return false
		}
	}
	return true
}

func (w *Writers) run(ctx context.Context, i int) {
	for seq := 0; ctx.Err() == nil; seq++ {
		err := w.session(ctx, i, &seq)
		if ctx.Err() != nil {
			return
		}
		w.failed(i, err)
		pause(ctx, retryPause)
	}
}

// session writes rows on one connection until an error.
func (w *Writers) session(ctx context.Context, i int, seq *int) error {
	c, err := Connect(ctx, w.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	for ; ; *seq++ {
		key := fmt.Sprintf("%s/%d/%d/%d", w.via, i, time.Now().UnixNano(), *seq)
		if _, err := c.Query("INSERT INTO writes VALUES ('" + key + "')"); err != nil {
			return err
		}
		w.succeeded(i, key)
		pause(ctx, writePause)
	}
}

func (w *Writers) succeeded(i int, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.gap[i] = max(w.gap[i], now.Sub(w.last[i]))
	w.last[i] = now
	w.acked[key] = true
	w.tally.Writes++
}

func (w *Writers) failed(i int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if IsReadOnly(err) {
		w.tally.ReadOnly++
	} else {
		w.tally.Errors++
	}
	w.tally.Log = append(w.tally.Log, Failure{time.Now(), i, err})
}

// snapshot returns the rows that have been acknowledged so far.
func (w *Writers) snapshot() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.acked)
}

// setLost counts the acknowledged rows that the primary lacks.
func (w *Writers) setLost(acked, there map[string]bool) {
	n := 0
	for key := range acked {
		if !there[key] {
			n++
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.Lost = n
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
