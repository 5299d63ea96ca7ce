package accesslog

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/proxy"
)

// Log is the access log as it comes and goes with the configuration. All but Counts is for one caller at a time.
type Log struct {
	log   hclog.Logger
	own   Outputs
	tell  func(func(proxy.AccessRecord)) // says who is told of what ends; nil: nobody
	cfg   Options                        // of now
	now   atomic.Pointer[writer]         // nil: there is none
	lines counts
}

// New returns an access log that is off. What it calls by tell says who is told of what ends, nil: nobody.
func New(own Outputs, tell func(func(proxy.AccessRecord)), log hclog.Logger) *Log {
	return &Log{log: log, own: own, tell: tell}
}

// Prepare opens what next needs, nil if there is to be no access log. That nobody reads a FIFO yet is no error.
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

// Reopen has the file opened anew, soon.
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

// Counts is what the metrics ask.
func (a *Log) Counts() (written, dropped int64, is bool) {
	return a.lines.written.Load(), a.lines.dropped.Load(), a.now.Load() != nil
}
