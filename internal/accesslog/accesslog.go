package accesslog

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Log is the access log. The configuration turns it on, changes it and turns it off. Counts may be called at any
// time; the other methods are for one caller at a time.
type Log struct {
	log   hclog.Logger
	own   Outputs
	tell  func(func(proxy.AccessRecord)) // says who is told of what ends; nil: nobody
	cfg   Options                        // of now
	now   atomic.Pointer[writer]         // nil: there is none
	lines counts
}

// New returns a Log that is off. It calls tell with the function that takes records, and with nil when none are wanted.
func New(own Outputs, tell func(func(proxy.AccessRecord)), log hclog.Logger) *Log {
	return &Log{log: log, own: own, tell: tell}
}

// Prepare opens what next needs. Nil turns the access log off. A FIFO that has no reader yet is no error.
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

// Reopen asks for the file to be opened anew, and does not wait for that.
func (a *Log) Reopen() {
	if l := a.now.Load(); l != nil {
		select {
		case l.rotated <- struct{}{}:
		default: // it will be
		}
	}
}

// Stop ends the access log, if there is one.
func (a *Log) Stop() {
	if l := a.now.Swap(nil); l != nil {
		a.tell(nil)
		l.stop()
	}
}

// Counts returns how many lines were written and dropped since the start, and whether the access log is on.
func (a *Log) Counts() (written, dropped int64, is bool) {
	return a.lines.written.Load(), a.lines.dropped.Load(), a.now.Load() != nil
}
