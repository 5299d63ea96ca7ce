package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

func TestWhatConsulSaysCannotDriveTheTerminal(t *testing.T) {
	now := time.Now()
	s := &admin.Service{Name: "web", Source: "x\x1b]0;title\a", Problem: "\x1b[2J", Endpoints: []admin.Endpoint{{
		ID: "n/\x1b[31mred", Address: "h\x9bost:1",
		State: admin.StateOut, Reason: "critical", Detail: "a\r\nb\u202ec", Tags: []string{"\x07"},
	}}}
	var b strings.Builder
	if err := writeExplanation(&b, now, s, nil, errors.New("e\x1b"),
		[]admin.Event{{Service: "w\x1b", Text: "t\x1b"}}); err != nil {
		t.Fatal(err)
	}
	if err := writeService(&b, now, s); err != nil {
		t.Fatal(err)
	}
	if err := writeStatus(&b, &admin.Status{Version: "\x1b"}, []admin.Service{*s}); err != nil {
		t.Fatal(err)
	}
	if err := writeConnections(&b, []admin.Connection{
		{Service: "\x1b", Endpoint: "\x1b", Address: "\x1b"},
	}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(b.String(), "\x1b\a\r\u009b\u202e"); i >= 0 {
		t.Errorf("a control character at %q", b.String()[max(0, i-20):i+1])
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0ms", 0: "0ms", 350 * time.Millisecond: "350ms", 999_999 * time.Microsecond: "999ms", time.Second: "1s",
		59_999 * time.Millisecond: "59s", time.Minute: "1m", 90 * time.Second: "1m", time.Hour: "1h",
		47 * time.Hour: "47h",
		48 * time.Hour: "2d", 49 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	t.Parallel()
	if got := ago(testNow, nil); got != "never" {
		t.Errorf("got %q", got)
	}
	if got := ago(testNow, before(3*time.Second)); got != "3s ago" {
		t.Errorf("got %q", got)
	}
}

func TestWhomToAsk(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"nowhere":         `-admin: "nowhere" is neither an IP address with a port nor unix:///path`,
		"example.com:80":  `-admin: "example.com:80" is neither an IP address with a port nor unix:///path`,
		"127.0.0.1":       `-admin: "127.0.0.1" is neither an IP address with a port nor unix:///path`,
		"unix://run/sock": `-admin: "unix://run/sock": the path of a socket must be absolute`,
	} {
		_, said := lictor(t, exitFailed, "status", "-admin", address)
		equal(t, said, "lictor status: "+want+"\n")
	}
	_, port, _ := strings.Cut(answering(t).address, ":")
	prints(t, []string{"status", "-admin", "localhost:" + port}, "ready")
}

// Without an address the default sockets are tried in order. The error has a line for each, with the reason.
func TestEveryPlaceIsTried(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LICTOR_ADMIN", "")
	t.Setenv("RUNTIME_DIRECTORY", dir+"/a:"+dir+"/b")
	t.Setenv("XDG_RUNTIME_DIR", dir+"/x")
	_, _, err := (&asker{}).connect(t.Context())
	var nobody *errNobody
	if !errors.As(err, &nobody) {
		t.Skipf("a lictor runs here: %v", err)
	}
	want := []string{
		"unix://" + dir + "/a/admin.sock: no such file or directory",
		"unix:///run/lictor/admin.sock: no such file or directory",
		"unix://" + dir + "/x/lictor/admin.sock: no such file or directory",
	}
	if !slices.Equal(nobody.tried, want) {
		t.Errorf("got %q, want %q", nobody.tried, want)
	}
}

// A user who may not open the socket is told whom to ask as, not to start another lictor.
func TestDeniedSocketSaysWhomToAskAs(t *testing.T) {
	t.Parallel()
	var nobody errNobody
	failed := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
	}
	nobody.add(admin.Address{Socket: "/a"}, failed(syscall.EACCES))
	nobody.add(admin.Address{Socket: "/b"}, failed(syscall.ENOENT))
	equal(t, nobody.Error(), "no running lictor answers\n  unix:///a: permission denied\n"+
		"  unix:///b: no such file or directory\n"+
		"Ask as root, for example with sudo, or as the user that lictor runs as. "+
		"If its admin block has another address, give that with -admin or in $LICTOR_ADMIN.")
}

// The token is the text of the file without surrounding white space. If the token is missing, the error says how to
// give it.
func TestTokenOfTheAdminAPI(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("  sesame\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sesame" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error": "a token is needed"}`)
			return
		}
		_, _ = io.WriteString(w, `{"ready": true, "ok": true}`)
	}))
	t.Cleanup(server.Close)
	at := server.Listener.Addr().String()
	prints(t, []string{"status", "-admin", at, "-token-file", path}, "ready")
	prints(t, []string{"top", "-json", "-admin", at, "-token-file", path}, `"status"`)
	for _, command := range []string{"status", "connections", "events", "reload", "upgrade", "top -once"} {
		args := append(strings.Fields(command), "-admin", at)
		_, said := lictor(t, exitFailed, args...)
		equal(t, said, "lictor "+args[0]+": a token is needed\n"+
			"Give the file of the token with -token-file or in $LICTOR_ADMIN_TOKEN_FILE.\n")
	}
	_, said := lictor(t, exitFailed, "status", "-admin", at, "-token-file", path+"s")
	if !strings.Contains(said, "no such file") || strings.Contains(said, "$LICTOR") {
		t.Errorf("got %q", said)
	}
}

// A program that answers 200, but not like lictor, is not taken for a running lictor.
func TestAnotherProgramAnswers(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{"GET /v1/status": "<html>"})
	_, said := lictor(t, exitNobody, "status", "-admin", f.address)
	want := "no running lictor answers\n  " + f.address + ": " + f.address + " does not answer like lictor"
	if !strings.Contains(said, want) {
		t.Errorf("got %q", said)
	}
	f = newFakeLictor(t, nil)
	_, said = lictor(t, exitFailed, "status", "-admin", f.address)
	equal(t, said, "lictor status: there is no /v1/status\n")
}

// Errors may quote foreign text. Its control characters must not reach the terminal.
func TestErrorsCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	bad := &admin.APIError{Code: http.StatusUnprocessableEntity, Text: "web.hcl:1:1: no\n  Consul says \x1b[2J\u202e"}
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "POST /v1/reload": bad})
	_, said := lictor(t, exitFailed, "reload", "-admin", f.address)
	equal(t, said, "lictor reload: web.hcl:1:1: no\n  Consul says \ufffd[2J\ufffd\n")
}
