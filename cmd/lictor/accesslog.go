package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/proxy"
)

// accessQueue is how many lines may wait to be written, and accessFlush how long they do at most.
const (
	accessQueue = 4096
	accessFlush = time.Second
	accessGrace = 2 * time.Second // for what waits when it ends
)

// An accessLog writes a line for each connection and session. Those who tell it never wait: when the queue is full, because a disk is slow,
// lines are dropped and counted.
type accessLog struct {
	log    hclog.Logger
	queue  chan proxy.AccessRecord
	sample atomic.Int64  // one in so many
	count  atomic.Uint64 // connections, for sampling
	*accessCounts

	// The following belong to the goroutine of run.
	o    config.AccessLog
	file *os.File // nil: it cannot be opened
	out  *bufio.Writer
	told int64 // drops that the log knows of

	changes chan accessChange // to another file or format
	rotated chan struct{}     // has an element when the file is to be opened anew
	stopped chan struct{}     // closed when it is to end
	ended   chan struct{}     // closed when it has
}

// accessCounts are of all access logs that there were.
type accessCounts struct{ written, dropped atomic.Int64 }

// An accessChange is what an access log goes on with.
type accessChange struct {
	o    config.AccessLog
	file *os.File
}

// newAccessLog starts what writes to file.
func newAccessLog(o config.AccessLog, file *os.File, counts *accessCounts, log hclog.Logger) *accessLog {
	a := &accessLog{
		log: log, queue: make(chan proxy.AccessRecord, accessQueue), accessCounts: counts, told: counts.dropped.Load(),
		changes: make(chan accessChange, 1), rotated: make(chan struct{}, 1), stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	a.use(o, file)
	go a.run()
	return a
}

// openAccess opens the file of an access log.
func openAccess(o config.AccessLog) (*os.File, error) {
	file, err := os.OpenFile(o.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	return file, nil
}

// add takes a record, or drops it. It is what proxy.Options.Access wants.
func (a *accessLog) add(r proxy.AccessRecord) {
	if n := a.sample.Load(); r.Reason != proxy.ReasonUnserved && n > 1 && a.count.Add(1)%uint64(n) != 1 {
		return
	}
	select {
	case a.queue <- r:
	default:
		a.dropped.Add(1)
	}
}

// stop writes what waits, and closes the file. It does not wait long for a disk that takes nothing.
func (a *accessLog) stop() {
	close(a.stopped)
	select {
	case <-a.ended:
	case <-time.After(accessGrace):
		a.log.Warn("access log not written to its end")
	}
}

// change goes on with another file, or format, or sample, when what waits is written. It does not wait for that. One caller at a time.
func (a *accessLog) change(c accessChange) {
	select {
	case former := <-a.changes: // it did not come to that, and will not
		_ = former.file.Close()
	default:
	}
	a.changes <- c
}

func (a *accessLog) run() {
	defer close(a.ended)
	tick := time.NewTicker(accessFlush)
	defer tick.Stop()
	for {
		select {
		case r := <-a.queue:
			a.write(&r)
		case <-tick.C:
			a.flush()
			a.reopen(false)
		case <-a.rotated:
			a.flush()
			a.reopen(true)
		case c := <-a.changes:
			a.finish()
			a.use(c.o, c.file)
		case <-a.stopped:
			a.finish()
			return
		}
	}
}

// use goes on with another file, or the first.
func (a *accessLog) use(o config.AccessLog, file *os.File) {
	a.o, a.file, a.out = o, file, bufio.NewWriterSize(file, 64<<10)
	a.sample.Store(int64(o.Sample))
}

// finish writes what waits, and closes the file.
func (a *accessLog) finish() {
	for len(a.queue) > 0 {
		r := <-a.queue
		a.write(&r)
	}
	a.flush()
	a.close()
}

func (a *accessLog) close() {
	if a.file != nil {
		_ = a.file.Close() // what could not be written, flush has told of
		a.file = nil
	}
}

// reopen opens the file anew if it has been moved away, as logrotate does, if it could not be opened so far, or if that is wanted.
func (a *accessLog) reopen(wanted bool) {
	if a.file != nil && !wanted {
		mine, err1 := a.file.Stat()
		there, err2 := os.Stat(a.o.Path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return
		}
	}
	file, err := openAccess(a.o)
	if err != nil {
		if !wanted {
			a.close() // the one that was moved away is somebody else's by now
		}
		a.log.Warn("access log cannot be opened anew", "error", err)
		return
	}
	a.close()
	a.use(a.o, file)
}

func (a *accessLog) write(r *proxy.AccessRecord) {
	if a.file == nil {
		a.dropped.Add(1)
		return
	}
	line := accessText(r)
	if a.o.JSON {
		line = accessJSON(r)
	}
	if _, err := a.out.Write(line); err != nil {
		a.failed(err)
		return
	}
	a.written.Add(1)
}

func (a *accessLog) flush() {
	if a.file != nil {
		if err := a.out.Flush(); err != nil {
			a.failed(err)
		}
	}
	if n := a.dropped.Load(); n > a.told {
		a.log.Warn("access log lines dropped", "lines", n-a.told)
		a.told = n
	}
}

// failed gives the file up until the next reopen: a writer that failed goes on failing.
func (a *accessLog) failed(err error) {
	if !errors.Is(err, os.ErrClosed) {
		a.log.Warn("access log cannot be written", "error", err)
	}
	a.dropped.Add(1)
	a.close()
}

// An accessLine is a record as JSON. Times are in seconds.
type accessLine struct {
	Time             time.Time `json:"time"`
	Service          string    `json:"service"`
	Protocol         string    `json:"protocol"`
	Client           string    `json:"client"`
	Endpoint         string    `json:"endpoint,omitempty"`
	Address          string    `json:"address,omitempty"`
	Connect          float64   `json:"connect"`
	Duration         float64   `json:"duration"`
	Up               int64     `json:"up"`
	Down             int64     `json:"down"`
	*accessDatagrams           // nil: TCP
	By               string    `json:"by"`
	End              string    `json:"end"`
}

// accessDatagrams are those of a session.
type accessDatagrams struct {
	Up   int64 `json:"datagrams_up"`
	Down int64 `json:"datagrams_down"`
}

func accessLineOf(r *proxy.AccessRecord) accessLine {
	l := accessLine{
		Time: r.Ended.UTC().Truncate(time.Microsecond), Service: r.Service, Protocol: r.Protocol.String(), Client: r.Client.String(), Connect: r.Connect.Seconds(), Duration: r.Duration.Seconds(),
		Up: r.Up, Down: r.Down, By: endedBy(r.Reason), End: r.Reason,
	}
	if r.Protocol == proxy.UDP {
		l.accessDatagrams = &accessDatagrams{Up: r.DatagramsUp, Down: r.DatagramsDown}
	}
	if r.Endpoint.ID != "" {
		l.Endpoint, l.Address = r.Endpoint.ID, r.Endpoint.Address()
	}
	return l
}

// endedBy says who ended a connection.
func endedBy(reason string) string {
	switch {
	case reason == proxy.ReasonEndpointLeft: // and Lictor drew the conclusion
	case strings.HasPrefix(reason, "client"):
		return "client"
	case strings.HasPrefix(reason, "endpoint"):
		return "endpoint"
	}
	return "lictor"
}

func accessJSON(r *proxy.AccessRecord) []byte {
	line, _ := json.Marshal(accessLineOf(r)) // plain data: it cannot fail
	return append(line, '\n')
}

// accessText is such as
//
//	2026-01-02T03:04:05.000000Z web 127.0.0.1:34567 -> node/web-1 10.0.0.1:80 connect=0.000312 duration=1.204000 up=120 down=5311 by=client end="client closed"
//
// and with datagrams_up and datagrams_down if it was a session; with "-" for what there is not, and names in quotes if they would look like more than one word.
func accessText(r *proxy.AccessRecord) []byte {
	l := accessLineOf(r)
	line := fmt.Appendf(nil, "%s %s %s -> %s %s connect=%.6f duration=%.6f up=%d down=%d", l.Time.Format("2006-01-02T15:04:05.000000Z"), word(l.Service),
		l.Client, word(l.Endpoint), word(l.Address), l.Connect, l.Duration, l.Up, l.Down)
	if d := l.accessDatagrams; d != nil {
		line = fmt.Appendf(line, " datagrams_up=%d datagrams_down=%d", d.Up, d.Down)
	}
	return fmt.Appendf(line, " by=%s end=%q\n", l.By, l.End)
}

func word(s string) string {
	if s == "" {
		return "-"
	}
	if q := strconv.Quote(s); len(q) > len(s)+2 || strings.ContainsAny(s, " =") {
		return q
	}
	return s
}
