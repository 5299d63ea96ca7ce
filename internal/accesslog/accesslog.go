package accesslog

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Log is the access log. The configuration turns it on, changes it and turns it off. Counts is safe for concurrent
// use; the other methods allow one caller at a time.
type Log struct {
	log   hclog.Logger
	own   Outputs
	tell  func(func(proxy.AccessRecord)) // installs the function that receives records; nil removes it
	cfg   Options                        // the options in force
	now   atomic.Pointer[writer]         // nil if the access log is off
	lines counts
}

// New returns a Log that is off. When the log is turned on, it calls tell with the function that takes records. When
// the log is turned off, it calls tell with nil.
func New(own Outputs, tell func(func(proxy.AccessRecord)), log hclog.Logger) *Log {
	return &Log{log: log, own: own, tell: tell}
}

// Prepare opens the target for next. A nil next turns the access log off. A FIFO without a reader is not an error.
func (a *Log) Prepare(next *Options) (Change, error) {
	now := a.now.Load()
	switch {
	case next == nil && now == nil, next != nil && now != nil && *next == a.cfg:
		return Change{}, nil
	case next == nil:
		return Change{commit: a.Stop}, nil
	}
	to, err := openTarget(*next, a.own)
	if err != nil && !errors.Is(err, errNobodyReads) {
		return Change{}, err
	}
	return Change{
		commit: func() {
			a.cfg = *next
			if now != nil {
				now.change(reconfiguration{*next, to})
				return
			}
			l := newWriter(*next, to, a.own, &a.lines, a.log)
			a.now.Store(l)
			a.tell(l.add)
		},
		abort: to.close,
	}, nil
}

// Reopen asks the writer to open the file again, and does not wait for that.
func (a *Log) Reopen() {
	if l := a.now.Load(); l != nil {
		select {
		case l.rotated <- struct{}{}:
		default: // the request is pending already
		}
	}
}

// Stop turns the access log off, if it is on.
func (a *Log) Stop() {
	if l := a.now.Swap(nil); l != nil {
		a.tell(nil)
		l.stop()
	}
}

// Counts returns the number of lines written and dropped since the start, and whether the access log is on.
func (a *Log) Counts() (written, dropped int64, is bool) {
	return a.lines.written.Load(), a.lines.dropped.Load(), a.now.Load() != nil
}
