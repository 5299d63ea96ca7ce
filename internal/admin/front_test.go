package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// A listener can be replaced while a stream and a reload request are open on it.
func TestListenersComeAndGo(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	h := serveTo(t, Access{}, Options{Reload: func(context.Context) (string, error) {
		close(began)
		<-release
		return "moved", nil
	}}, "web")
	stream, err := http.Get("http://" + h.tcp + "/v1/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	answered := make(chan int, 1)
	go func() {
		r, err := http.Post("http://"+h.tcp+"/v1/reload", "", nil)
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		_ = r.Body.Close()
		answered <- r.StatusCode
	}()
	<-began
	left := make(chan struct{})
	go func() {
		h.Leave(h.listener)(t.Context())
		close(left)
	}()
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Errorf("the stream ended with %v, want an end", err)
	}
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("the reload was answered with %d, want 200", code)
	}
	<-left
	if c, err := net.Dial("tcp", h.tcp); err == nil {
		_ = c.Close()
		t.Error("the listener is still open")
	}
	var status Status
	h.get("/v1/status", &status) // the other listener continues
}

func TestWhoMayAskCanChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := serve(t, Options{}, "web")
	if code, _ := h.ask("GET", "/v1/status", ""); code != 200 {
		t.Fatalf("got %d, want 200", code)
	}
	h.Admit(h.listener, Access{TokenFile: file})
	if code, _ := h.ask("GET", "/v1/status", ""); code != 401 { // also on a connection that was allowed before
		t.Errorf("got %d, want 401", code)
	}
	h.Admit(h.listener, Access{})
	if code, _ := h.ask("GET", "/v1/status", ""); code != 200 {
		t.Errorf("got %d, want 200", code)
	}
}

func TestListenBesideAnOverlappingAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lets a port be shared after the bind")
	}
	old, err := Listen(Address{TCP: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	wide := Address{TCP: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(old.Addr().(*net.TCPAddr).Port))}
	l, err := ListenBeside(wide, old)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if again, err := Listen(wide); err == nil {
		_ = again.Close()
		t.Error("the port stays shared")
	}
}
