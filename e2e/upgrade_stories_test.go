//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// wantRefusedUpgrade runs lictor upgrade. The command must fail, print all of want, and change nothing.
func (d *dynasty) wantRefusedUpgrade(t *testing.T, want ...string) {
	t.Helper()
	code, output := d.command(t, "upgrade")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, text := range want {
		if !strings.Contains(output, text) {
			t.Errorf("no %q in: %s", text, output)
		}
	}
	if pid := d.pid(t); pid != d.Pid() {
		t.Errorf("process %d serves, want %d as before", pid, d.Pid())
	}
}

// script writes a program of shell lines, and returns its path.
func script(t *testing.T, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o700))
	return path
}

func TestSuccessorThatFailsLeavesThePredecessorServing(t *testing.T) {
	t.Parallel()
	good := service("web", endpoints(startEcho(t, "a"))) +
		service("dns", udp, fmt.Sprintf("static { endpoints = [%q] }", startWhence(t, "w")))
	d := found(t, good)
	web := d.addr(t, "web")
	l := newCrowd(t)
	defer l.end()
	l.addAll(web, d.addr(t, "dns"))
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()

	for _, tt := range []struct {
		name, config, program string
		want                  []string
	}{
		{"bad configuration", good + "service \"bad\" {\n  lisen = 1\n}\n", "", []string{"lisen", d.file}},
		{"address in use", good + fmt.Sprintf("service \"more\" {\n  listen = %q\n}\n", taken.Addr()), "",
			[]string{taken.Addr().String(), "something else listens there"}},
		{"program that exits", good, script(t, "exit 3"), []string{"exit status 3"}},
		{"program that is none", good, d.file, []string{"cannot be started"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.configure(t, tt.config)
			if tt.program != "" {
				d.install(t, tt.program)
			}
			l.getOn(5)
			d.wantRefusedUpgrade(t, tt.want...)
			l.getOn(5)
			d.configure(t, good)
			d.install(t, lictorPath(t))
		})
	}
	if pid := d.upgrade(t); pid == d.Pid() {
		t.Errorf("not upgraded after all")
	}
	l.getOn(5)
}

func TestSuccessorThatHangsLeavesThePredecessorServing(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	d := found(t, service("web", endpoints(startEcho(t, "a"))))
	conn := mustConnect(t, d.addr(t, "web"))
	d.install(t, script(t, "exec sleep 1000"))
	d.wantRefusedUpgrade(t, "was not ready in time")
	must(t, conn.echo("still there?"))
	d.install(t, lictorPath(t))
	if pid := d.upgrade(t); pid == d.Pid() {
		t.Errorf("not upgraded after all")
	}
	must(t, conn.echo("still there?"))
}

// The successor begins with the endpoints that the predecessor knows, even if Consul is away. Drained endpoints stay
// drained.
func TestUpgradeWhileConsulIsAway(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c"} {
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	dir := filepath.Join(t.TempDir(), "state")
	config := fmt.Sprintf("state_dir = %q\n", dir) + consulBlock(c) + service("web")
	d := found(t, config)
	web := d.addr(t, "web")
	awaitRotation(t, web, "a", "b", "c")
	awaitSaved(t, dir, "web")
	d.post(t, "/v1/services/web/drain", fmt.Sprintf(`{"endpoint": %q}`, d.endpoint(t, "web", "/b")))
	awaitRotation(t, web, "a", "c")
	c.Kill()
	must(t, os.RemoveAll(dir)) // only the predecessor knows the endpoints now
	for range 3 {
		d.upgrade(t)
		awaitRotation(t, web, "a", "c")
	}
	must(t, c.Restart(t.Context()))
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name+"2").addr)
	}
	awaitRotation(t, web, "a2") // b is still drained
	awaitSaved(t, dir, "web")   // by the process that serves
}

// post asks the admin API.
func (d *dynasty) post(t *testing.T, path, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.runtime, "admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://lictor"+path, "application/json", strings.NewReader(body))
	must(t, err)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, answer.Status)
	}
}

// endpoint returns the ID of the service's endpoint that ends with a text.
func (d *dynasty) endpoint(t *testing.T, service, suffix string) string {
	t.Helper()
	_, output := d.command(t, "status", service, "-json")
	for _, line := range strings.Split(output, "\n") {
		if f := strings.Split(line, `"`); len(f) > 3 && f[1] == "id" && strings.HasSuffix(f[3], suffix) {
			return f[3]
		}
	}
	t.Fatalf("no endpoint %s in %s", suffix, output)
	panic("unreachable")
}

// The old process ends with its last connection, shutdown_grace after SIGTERM, or after upgrade_grace.
func TestFormerProcessEndsWithItsConnections(t *testing.T) {
	t.Parallel()
	web := service("web", endpoints(startEcho(t, "a")))
	for _, tt := range []struct {
		name, config string
		end          func(t *testing.T, d *dynasty, conn *client)
		cut          bool
	}{
		{"by itself", "", func(t *testing.T, d *dynasty, conn *client) { must(t, conn.CloseWrite()) }, false},
		{"asked to", "shutdown_grace = \"10ms\"\n",
			func(t *testing.T, d *dynasty, conn *client) { must(t, d.Signal(syscall.SIGTERM)) }, true},
		{"asked twice", "shutdown_grace = \"10m\"\n", func(t *testing.T, d *dynasty, conn *client) {
			must(t, d.Signal(syscall.SIGTERM))
			d.awaitText(t, d.err, `"stopping"`, 1)
			must(t, d.Signal(syscall.SIGTERM))
		}, true},
		{"upgrade_grace", "upgrade_grace = \"200ms\"\n", func(*testing.T, *dynasty, *client) {}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := found(t, tt.config+web)
			conn := mustConnect(t, d.addr(t, "web"))
			next := d.upgrade(t)
			if !tt.cut {
				must(t, conn.echo("still there?"))
			}
			must(t, d.Signal(syscall.SIGHUP)) // the signal is meant for the new process
			must(t, d.Signal(syscall.SIGUSR2))
			tt.end(t, d, conn)
			if tt.cut {
				conn.wantCut(t)
			}
			(&lictor{Process: d.Process}).exits(t, 0)
			if pid := d.pid(t); pid != next {
				t.Errorf("process %d serves, want %d", pid, next)
			}
			wantCounts(t, d.addr(t, "web"), map[string]int{"a": 3})
			socket := filepath.Join(d.runtime, "admin.sock")
			must(t, syscall.Kill(next, syscall.SIGTERM))
			eventually(t, "the admin socket goes with the last", func() error {
				if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("it is there: %v", err)
				}
				return nil
			})
		})
	}
}

// A configuration that writes 0 where "never" is written today keeps its meaning, also over an upgrade. Lictor warns.
func TestUpgradeWithOldZeros(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	const old = "upgrade_grace = \"0s\"\n"
	web := service("web", endpoints(startEcho(t, "a")), `idle_timeout = "0s"`, `max_fails = 0`)
	d := found(t, old+web)
	conn := mustConnect(t, d.addr(t, "web"))
	d.upgrade(t)
	must(t, conn.echo("still there?"))
	running, err := os.ReadFile(d.file)
	must(t, err)
	renamed := strings.NewReplacer(`"0s"`, `"never"`, "max_fails = 0", `max_fails = "never"`).Replace(string(running))
	file := filepath.Join(t.TempDir(), "new.hcl")
	must(t, os.WriteFile(file, []byte(renamed), 0o600))
	if code, out := d.command(t, "plan", "-config", file); code != 0 || out != "nothing would change\n" {
		t.Errorf("plan: got %d, %s", code, out)
	}
	d.awaitText(t, d.err, "Old spelling: upgrade_grace", 2) // each of the two processes
	d.awaitText(t, d.err, "Old spelling: idle_timeout", 2)
	d.awaitText(t, d.err, "Old spelling: max_fails", 2)
	must(t, conn.CloseWrite())
	(&lictor{Process: d.Process}).exits(t, 0)
}

func TestSuccessorsKeepNoDescriptors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc to count them in")
	}
	d := found(t, service("web", endpoints(startEcho(t, "a")))+service("dns", udp,
		fmt.Sprintf("static { endpoints = [%q] }", startWhence(t, "w"))))
	client := dialUDP(t, d.addr(t, "dns"))
	_, err := exactly(client, "one session")
	must(t, err)
	settled := func(pid int, want int) (n int) {
		eventually(t, "few descriptors", func() error {
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if n = len(entries); err == nil && want > 0 && n > want {
				err = fmt.Errorf("%d, want %d at most", n, want)
			}
			return err
		})
		return n
	}
	wantCounts(t, d.addr(t, "web"), map[string]int{"a": 1})
	first := settled(d.Pid(), 0)
	pid := 0
	for range 10 {
		pid = d.upgrade(t)
		_, err := exactly(client, "the same session")
		must(t, err)
	}
	last := settled(pid, first)
	t.Logf("%d descriptors at first, %d after 10 upgrades", first, last)
}

// Consul has one registration, which is that of the serving process. The old process does not remove it.
func TestUpgradeKeepsTheRegistration(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	d := found(t, fmt.Sprintf("consul {\n  address  = %q\n  register = true\n}\n", c.HTTP)+service("web",
		endpoints(startEcho(t, "a"))))
	c.own(t, api.HealthPassing)
	pid := d.upgrade(t)
	(&lictor{Process: d.Process}).exits(t, 0)
	eventually(t, "the successor is registered", func() error {
		s, _, err := c.api.Agent().Service("lictor", nil)
		if err == nil && s.Meta["pid"] != fmt.Sprint(pid) {
			err = fmt.Errorf("process %s is, want %d", s.Meta["pid"], pid)
		}
		return err
	})
	c.own(t, api.HealthPassing)
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	c.own(t, "gone")
}
