package main

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/proxy"
)

// accessLogs is the access log as it comes and goes with the configuration. All but counts is for one caller at a time.
type accessLogs struct {
	log   hclog.Logger
	own   *output                        // where /dev/stdout and /dev/stderr lead
	tell  func(func(proxy.AccessRecord)) // says who is told of what ends; nil: nobody
	cfg   config.AccessLog               // of now
	now   atomic.Pointer[accessLog]      // nil: there is none
	lines accessCounts
}

// prepare opens what next needs, nil if there is to be no access log. That nobody reads a FIFO yet is no error.
func (a *accessLogs) prepare(next *config.AccessLog) (step, error) {
	now := a.now.Load()
	switch {
	case next == nil && now == nil, next != nil && now != nil && *next == a.cfg:
		return step{}, nil
	case next == nil:
		return step{commit: a.stop}, nil
	}
	to, err := openAccess(*next, a.own)
	if err != nil && !errors.Is(err, errNobodyReads) {
		return step{}, err
	}
	return step{
		commit: func() {
			a.cfg = *next
			if now != nil {
				now.change(accessChange{*next, to})
				return
			}
			l := newAccessLog(*next, to, a.own, &a.lines, a.log)
			a.now.Store(l)
			a.tell(l.add)
		},
		abandon: to.close,
	}, nil
}

// reopen has the file opened anew, soon.
func (a *accessLogs) reopen() {
	if l := a.now.Load(); l != nil {
		select {
		case l.rotated <- struct{}{}:
		default: // it will be
		}
	}
}

// stop ends the access log, if there is one.
func (a *accessLogs) stop() {
	if l := a.now.Swap(nil); l != nil {
		a.tell(nil)
		l.stop()
	}
}

// counts is what the metrics ask.
func (a *accessLogs) counts() (written, dropped int64, is bool) {
	return a.lines.written.Load(), a.lines.dropped.Load(), a.now.Load() != nil
}
