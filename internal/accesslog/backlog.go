package accesslog

import (
	"sync"

	"github.com/lictor-proxy/lictor/proxy"
)

// A backlog holds the records that are not formatted yet. Adding a record only copies it. The formatting goroutine
// wakes up at intervals, or when many records wait, and not for each record.
type backlog struct {
	wake chan struct{} // has an element when wakeAt records wait

	mu      sync.Mutex
	records []proxy.AccessRecord // guarded by mu
}

// Limits of a backlog, in records.
const (
	maxBacklog = 8192 // maximum of waiting records; more are dropped
	wakeAt     = 1024
)

func newBacklog() *backlog { return &backlog{wake: make(chan struct{}, 1)} }

// add adds a record. add returns false if the backlog is full.
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

// take returns the waiting records. take reuses the memory of spare for later records; the caller must be done with
// those in spare. take does not keep memory that only a burst needed.
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

// len returns the number of waiting records.
func (q *backlog) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}
