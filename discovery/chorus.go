package discovery

import (
	"sync"
	"time"
)

// A chorus joins reports of several services that come at about the same time, because they have one cause. The log
// then has one line for all of them. A chorus is safe for concurrent use.
type chorus[T any] struct {
	tell func(reports []T) // called with mu held; reports has at least one element, in the order of add

	mu      sync.Mutex // guards the following fields
	reports []T
	began   time.Time   // when the first of reports was added
	due     *time.Timer // calls flush; nil: reports is empty
	closed  bool
}

// These constants limit how long a chorus waits for further reports.
const (
	chorusQuiet = time.Second     // from the last report
	chorusMost  = 5 * time.Second // from the first report
)

func newChorus[T any](tell func([]T)) *chorus[T] { return &chorus[T]{tell: tell} }

// add adds a report. After close, add does nothing.
func (c *chorus[T]) add(report T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	now := time.Now()
	if c.reports = append(c.reports, report); c.due == nil {
		c.began, c.due = now, time.AfterFunc(chorusQuiet, c.flush)
		return
	}
	c.due.Reset(min(chorusQuiet, chorusMost-now.Sub(c.began)))
}

// flush tells the reports.
func (c *chorus[T]) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

func (c *chorus[T]) flushLocked() {
	if c.due != nil {
		c.due.Stop()
	}
	reports := c.reports
	if c.reports, c.due = nil, nil; len(reports) > 0 {
		c.tell(reports)
	}
}

// close tells the reports, and ends c.
func (c *chorus[T]) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
	c.closed = true
}
