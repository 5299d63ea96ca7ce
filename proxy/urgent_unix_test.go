//go:build unix

package proxy

import (
	"io"
	"syscall"
	"testing"
)

// Urgent data arrives in its place in the stream, and the bytes behind it arrive too.
func TestTCPUrgentDataStaysInTheStream(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		got := make(chan string, 1)
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			b, _ := io.ReadAll(c)
			got <- string(b)
		}))
		c := dialTCP(t, addr)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "before ")
		raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil) })
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, " behind")
		c.CloseWrite()
		if s := <-got; s != "before ! behind" {
			t.Errorf("got %q, want %q", s, "before ! behind")
		}
	})
}
