package admin

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testseccomp"
)

// Where accept4 is denied, the API still answers over TCP and over its Unix socket. After Release it accepts no
// connection.
func TestServesWithoutAccept4(t *testing.T) {
	if !testseccomp.Under(t, unix.EPERM, unix.SYS_ACCEPT4) {
		return
	}
	h := serve(t, Options{}, "web")
	if code, text := h.ask("GET", "/v1/status", ""); code != 200 {
		t.Errorf("over TCP: got %d and %q, want 200", code, text)
	}
	var status Status
	h.get("/v1/status", &status)
	h.Release(h.listener)
	if c, err := net.Dial("tcp", h.tcp); err == nil {
		_ = c.Close()
		t.Error("connected after Release")
	}
}
