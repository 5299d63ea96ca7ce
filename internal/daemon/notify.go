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

// A notifier tells systemd how the daemon does, by the protocol of sd_notify(3). Without systemd it does nothing. A
// library for it would be more than what is here.
type notifier struct {
	conn     net.Conn // nil: nobody wants to know
	watchdog time.Duration
	replaced atomic.Bool // another process speaks now
}

// notifyTime is how long a message may wait for room in systemd's queue.
const notifyTime = time.Second

// newNotifier returns what getenv asks for. A socket that is not there is nothing to fail for.
func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{}
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // an abstract one
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

// send waits for systemd, but not for long: what takes signals calls it.
func (n *notifier) send(lines ...string) {
	if n.conn != nil && !n.replaced.Load() {
		_ = n.conn.SetWriteDeadline(time.Now().Add(notifyTime)) // it fails only if it is closed
		_, _ = n.conn.Write([]byte(strings.Join(lines, "\n")))  // there is nobody else to tell
	}
}

func (n *notifier) ready(status string)    { n.send("READY=1", "STATUS="+status) }
func (n *notifier) status(status string)   { n.send("STATUS=" + status) }
func (n *notifier) stopping(status string) { n.send("STOPPING=1", "STATUS="+status) }
func (n *notifier) alive()                 { n.send("WATCHDOG=1") }

// replacedBy says that another process is the main one. It is the last word of this one: systemd hears the main process
// only.
func (n *notifier) replacedBy(pid int) {
	n.send(fmt.Sprintf("MAINPID=%d", pid))
	n.replaced.Store(true)
}

// reloading says that a reload begins, and when. By the time, systemd knows which of several reloads has ended.
func (n *notifier) reloading() {
	n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()),
		"STATUS=reading the configuration again")
}

// patience returns how long a check whether all is alive may take.
func (n *notifier) patience() time.Duration { return n.watchdog / 4 }

// ticks ticks when it is time to say that the daemon is alive, twice as often as that is wanted.
func (n *notifier) ticks() (<-chan time.Time, func()) {
	if n.conn == nil || n.watchdog <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(n.watchdog / 2)
	return t.C, t.Stop
}
