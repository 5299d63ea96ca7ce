//go:build linux

package daemon

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestNotifier(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@lictor-test-" + t.Name()} {
		path := name
		if path[0] == '@' {
			path = "\x00" + path[1:]
		}
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		env := map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"}
		n := newNotifier(func(name string) string { return env[name] })
		n.ready("fine")
		n.reloading()
		n.alive()
		n.stopping("bye")
		for _, want := range []string{"READY=1\nSTATUS=fine", "RELOADING=1\nMONOTONIC_USEC=", "WATCHDOG=1",
			"STOPPING=1\nSTATUS=bye"} {
			buf := make([]byte, 1<<10)
			_ = socket.SetReadDeadline(time.Now().Add(time.Minute))
			k, err := socket.Read(buf)
			if got := string(buf[:k]); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		if n.watchdog != 3*time.Second {
			t.Errorf("watchdog: got %v", n.watchdog)
		}
	}
}

// The notifier does not wait for a systemd with a full queue, because signal handling would wait too.
func TestNotifierDoesNotWaitForSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	full, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for err == nil {
		_ = full.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = full.Write([]byte("x"))
	}
	n := newNotifier(func(name string) string { return map[string]string{"NOTIFY_SOCKET": path}[name] })
	testproc.Returns(t, "the notifier", n.alive)
}

func TestNotifierWithoutSystemdDoesNothing(t *testing.T) {
	n := newNotifier(func(string) string { return "" })
	n.ready("fine")
	if c, _ := n.ticks(); c != nil {
		t.Error("the ticker runs without a watchdog")
	}
	newNotifier(func(string) string { return "/does/not/exist" }).ready("fine")
}
