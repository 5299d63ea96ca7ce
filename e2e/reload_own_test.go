//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A reload moves the admin API, and changes which token it asks for.
func TestReloadMovesTheAdminAPI(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	web, api := serviceAt("web", freePort(t), endpoints(startEcho(t, "a"))), freePort(t)
	l := runLictor(t, web)
	l.awaitAnswer(t, "status", 0, "1 service")

	listen := func(addr any, more string) string {
		return fmt.Sprintf("admin {\n  listen = \"%v\"\n  %s\n}\n", addr, more) + web
	}
	asked := func(what string, code int, args ...string) {
		t.Helper()
		if got, out := l.ask(t, append([]string{"status"}, args...)...); got != code {
			t.Errorf("%s: exit code %d, want %d:\n%s", what, got, code, out)
		}
	}
	// The reload is asked for over the API, and the answer comes from the old address.
	l.configure(t, listen(api, ""))
	if code, out := l.ask(t, "reload"); code != 0 || !strings.Contains(out, "admin") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	asked("the new address", 0, "-admin", api.String())
	eventually(t, "the former socket is gone", func() error {
		if code, out := l.ask(t, "status", "-admin", "unix://"+filepath.Join(l.runtime, "admin.sock")); code != 3 {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})

	token := tokenFile(t, "secret")
	l.mustReload(t, listen(api, fmt.Sprintf("token_file = %q", token)))
	asked("without the token", 1, "-admin", api.String())
	asked("with the token", 0, "-admin", api.String(), "-token-file", token)

	if runtime.GOOS == "linux" { // elsewhere a port cannot be taken over
		l.mustReload(t, listen(netip.AddrPortFrom(netip.IPv4Unspecified(), api.Port()),
			fmt.Sprintf("token_file = %q", token)))
		asked("on all addresses", 0, "-admin", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"),
			api.Port()).String(), "-token-file", token)
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = taken.Close() }()
	if e := l.reload(t, listen(taken.Addr(), "")); !strings.Contains(e.field("error"), "in use") {
		t.Errorf("got %v, want that the address is in use", e)
	}
	asked("as before", 0, "-admin", api.String(), "-token-file", token)

	l.mustReload(t, web)
	l.awaitAnswer(t, "status", 0, "1 service")
	l.mustReload(t, "admin { listen = \"off\" }\n"+web)
	eventually(t, "nobody answers", func() error {
		if code, out := l.ask(t, "status"); code != 3 {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	l.terminate(t)
	l.exits(t, 0)
}

// A reload adds, removes and moves the access log, and opens its file again.
func TestReloadMovesTheAccessLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr := freePort(t)
	web := serviceAt("web", addr, endpoints(startEcho(t, "a")))
	l := runLictor(t, web)
	log := func(name, more string) string {
		return fmt.Sprintf("access_log {\n  path = %q\n  %s\n}\n", filepath.Join(dir, name), more) + web
	}
	// once makes a connection, waits until name has so many lines, and returns the last one.
	once := func(name string, lines int) string {
		t.Helper()
		c := mustConnect(t, addr)
		must(t, c.echo("hello"))
		must(t, c.Close())
		var text []byte
		eventually(t, "a line in "+name, func() (err error) {
			if text, err = os.ReadFile(filepath.Join(dir, name)); err == nil &&
				strings.Count(string(text), "\n") != lines {
				err = fmt.Errorf("got %q, want %d lines", text, lines)
			}
			return err
		})
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		return all[len(all)-1]
	}
	l.mustReload(t, log("1", ""))
	once("1", 1)
	l.mustReload(t, log("2", `format = "text"`))
	if line := once("2", 1); !strings.Contains(line, " -> ") {
		t.Errorf("got %q, want text", line)
	}
	must(t, os.Rename(filepath.Join(dir, "2"), filepath.Join(dir, "2.1"))) // as logrotate does
	l.mustReload(t, log("2", `format = "text"`))
	once("2", 1)
	if e := l.reload(t, log("no/such/folder", "")); !strings.Contains(e.field("error"), "access_log") {
		t.Errorf("got %v", e)
	}
	once("2", 2)
	l.mustReload(t, web)
	c := mustConnect(t, addr)
	must(t, c.Close())
	l.terminate(t)
	l.exits(t, 0)
	if text, err := os.ReadFile(filepath.Join(dir, "2")); err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("got %q, %v, want no more lines", text, err)
	}
}

// lictor plan compares a file with the running configuration, and shows none of its secrets.
func TestPlanAgainstTheRunningLictor(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	web := serviceAt("web", freePort(t), endpoints(startEcho(t, "a")))
	head := "consul { token = \"sesame-sesame\" }\n"
	l := runLictor(t, head+web)
	if code, out := l.ask(t, "plan", "-config", l.file); code != 0 || out != "nothing would change\n" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	l.configure(t, head+web+serviceAt("dns", freePort(t), udp))
	code, out := l.ask(t, "plan", "-config", l.file)
	if code != 0 || !strings.Contains(out, `+ service "dns"`) || !strings.Contains(out, "1 service added") ||
		strings.Contains(out, "sesame") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if code, out := l.ask(t, "reload"); code != 0 || !strings.Contains(out, "1 service added") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if code, out := l.ask(t, "plan", "-config", l.file); code != 0 || out != "nothing would change\n" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
