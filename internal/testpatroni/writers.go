//go:build unix

package testpatroni

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// How the writers of a path go about it.
const (
	writePause = 20 * time.Millisecond // between two writes
	retryPause = 50 * time.Millisecond // between an error and the next connection
)

// Writers write rows through one path to the primary, each on one connection that it makes anew after an error.
type Writers struct {
	via    string
	addr   string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	last  []time.Time     // when each writer's last write succeeded, or when counting began
	gap   []time.Duration // the longest time that each was without success
	acked map[string]bool // the rows that PostgreSQL has acknowledged
	tally Tally
}

// A Tally is what writers met since they were reset.
type Tally struct {
	Outage   time.Duration // the longest time between two successful writes of the same writer
	Writes   int
	ReadOnly int // writes that reached a server in recovery
	Errors   int // all other errors
	Lost     int // acknowledged writes that the primary does not have in the end; Cluster.Lost counts them
	Log      []Failure
}

// A Failure is one error of a writer.
type Failure struct {
	Time   time.Time
	Writer int
	Err    error
}

// StartWriters starts n writers that write to the table of Cluster.Prepare by way of addr. Stop ends them.
func StartWriters(via, addr string, n int) *Writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writers{via: via, addr: addr, cancel: cancel, last: make([]time.Time, n), gap: make([]time.Duration, n)}
	w.Reset()
	for i := range n {
		w.wg.Go(func() { w.run(ctx, i) })
	}
	return w
}

// Addr is where the writers write to.
func (w *Writers) Addr() string { return w.addr }

// Stop ends the writers and returns when they have ended.
func (w *Writers) Stop() {
	w.cancel()
	w.wg.Wait()
}

// Reset begins to count anew.
func (w *Writers) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.last {
		w.last[i], w.gap[i] = time.Now(), 0
	}
	w.acked, w.tally = map[string]bool{}, Tally{}
}

// Tally returns what the writers met so far. A writer that has had no success for long counts as it is now.
func (w *Writers) Tally() Tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tally
	for i := range w.last {
		t.Outage = max(t.Outage, w.gap[i], time.Since(w.last[i]))
	}
	return t
}

// Working reports whether all writers have written since the given time.
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

// session writes until an error.
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

// setLost counts the acknowledged rows that the primary does not have.
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
