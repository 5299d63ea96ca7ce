package accesslog

import (
	"sync"

	"github.com/lictor-proxy/lictor/proxy"
)

// A backlog holds the records that are not formatted yet. To add one costs a copy: the goroutine that formats records
// wakes up once in a while, and not for each record, unless many wait.
type backlog struct {
	wake chan struct{} // has an element when wakeAt records wait

	mu      sync.Mutex
	records []proxy.AccessRecord // guarded by mu
}

// Bounds of a backlog, in records.
const (
	maxBacklog = 8192 // that wait; more are dropped
	wakeAt     = 1024
)

func newBacklog() *backlog { return &backlog{wake: make(chan struct{}, 1)} }

// add adds a record, and reports whether there was room.
func (q *backlog) add(r *proxy.AccessRecord) bool {
	q.mu.Lock()
	n := len(q.records)
	if n == maxBacklog {
		q.mu.Unlock()
		return false
	}
	q.records = append(q.records, *r)
	q.mu.Unlock()
	if n+1 == wakeAt {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take returns the records that wait. It keeps spare, whose records the caller is done with, for others. The memory of
// a burst is not kept.
func (q *backlog) take(spare []proxy.AccessRecord) []proxy.AccessRecord {
	if cap(spare) > wakeAt && len(spare) < cap(spare)/4 {
		spare = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	records := q.records
	q.records = spare[:0]
	return records
}

// len returns how many records wait.
func (q *backlog) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}
