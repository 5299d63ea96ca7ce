package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A notifier reports the daemon's state to systemd with the protocol of sd_notify(3). Without systemd, a notifier does
// nothing. A library for the protocol would be larger than this file.
type notifier struct {
	conn     net.Conn // nil without systemd
	watchdog time.Duration
	replaced atomic.Bool // another process is the main process now
}

// notifyTime limits how long a message may wait for space in systemd's queue.
const notifyTime = time.Second

// newNotifier returns a notifier for the environment that getenv reads. If the socket cannot be reached, the notifier
// does nothing.
func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{}
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // an abstract socket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return n
	}
	n.conn = conn
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		usec, _ := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
		n.watchdog = time.Duration(max(usec, 0)) * time.Microsecond
	}
	return n
}

// send sends a message to systemd. send waits for at most notifyTime, because the signal loop calls it.
func (n *notifier) send(lines ...string) {
	if n.conn != nil && !n.replaced.Load() {
		_ = n.conn.SetWriteDeadline(time.Now().Add(notifyTime)) // fails only if the connection is closed
		_, _ = n.conn.Write([]byte(strings.Join(lines, "\n")))  // an error has no other receiver
	}
}

func (n *notifier) ready(status string)    { n.send("READY=1", "STATUS="+status) }
func (n *notifier) status(status string)   { n.send("STATUS=" + status) }
func (n *notifier) stopping(status string) { n.send("STOPPING=1", "STATUS="+status) }
func (n *notifier) alive()                 { n.send("WATCHDOG=1") }

// replacedBy reports that process pid is the main process now. The message is the last one of this process, because
// systemd listens only to the main process.
func (n *notifier) replacedBy(pid int) {
	n.send(fmt.Sprintf("MAINPID=%d", pid))
	n.replaced.Store(true)
}

// reloading reports that a reload begins. The time in the message lets systemd match it to the end of the reload.
func (n *notifier) reloading() {
	n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()),
		"STATUS=reading the configuration again")
}

// patience returns how long a check of the daemon's health may take.
func (n *notifier) patience() time.Duration { return n.watchdog / 4 }

// ticks returns a channel that ticks twice in each watchdog interval, and a function to stop it. Without a watchdog the
// channel is nil.
func (n *notifier) ticks() (<-chan time.Time, func()) {
	if n.conn == nil || n.watchdog <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(n.watchdog / 2)
	return t.C, t.Stop
}
