//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// startUnixEcho starts an instance at a Unix socket. It sends its name and a line end, and then echoes.
func startUnixEcho(t testing.TB, path, name string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	var running sync.WaitGroup
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, name+"\n"); err == nil {
			_, _ = io.Copy(c, c)
		}
	}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(c) })
		}
	})
	stop = sync.OnceFunc(func() { _ = l.Close() })
	t.Cleanup(func() { stop(); running.Wait() }) // Lictor has ended by then, and its connections with it
	return stop
}

// registerSocket registers an instance that listens on a Unix socket.
func (c *consul) registerSocket(t testing.TB, service, id, path string) {
	t.Helper()
	c.register(t, service, id, netip.AddrPort{}, func(r *api.AgentServiceRegistration) {
		r.Address, r.Port, r.SocketPath = "", 0, path
	})
}

// Instances at Unix sockets get clients, from a static list and, if their paths are allowed, from Consul. Connections
// to them survive an upgrade, and a server that comes back gets clients again.
func TestInstancesAtUnixSockets(t *testing.T) {
	t.Parallel()
	dir := shortTempDir(t)
	a, b, secret := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(shortTempDir(t), "s")
	stopA := startUnixEcho(t, a, "a")
	startUnixEcho(t, b, "b")
	startUnixEcho(t, secret, "secret")
	c := startConsul(t, testconsul.Options{})
	c.registerSocket(t, "db", "b", b)
	c.registerSocket(t, "db", "secret", secret)
	config := consulBlock(c) + service("fixed", fmt.Sprintf("static { endpoints = [%q] }", "unix://"+a)) +
		service("db", fmt.Sprintf("consul { socket_paths = [%q] }", dir+"/*")) +
		service("none", "consul { service = \"db\" }")
	code, out := validateLive(t, config)
	if code != 0 {
		t.Errorf("validate -live: exit code %d", code)
	}
	const refused = ", which socket_paths does not allow"
	wantTexts(t, out, "db: 1 of 2 instances", "in   test/b  unix://"+b,
		"out  test/secret  address: listens on the Unix socket "+secret+refused, "none: 0 of 2 instances")

	d := found(t, config)
	fixed, db := d.addr(t, "fixed"), d.addr(t, "db")
	wantCounts(t, fixed, map[string]int{"a": 5})
	wantCounts(t, db, map[string]int{"b": 5})
	_, out = d.command(t, "explain", "db")
	wantTexts(t, out, "IN   test/b at unix://"+b, "OUT  test/secret", secret+refused)
	_, out = d.command(t, "explain", "none")
	wantTexts(t, out, "OUT  test/b", "the consul block has no socket_paths that allow it")

	open := mustConnect(t, db)
	_, out = d.command(t, "connections")
	wantTexts(t, out, "unix://"+b)
	d.upgrade(t)
	must(t, open.echo("still here"))
	wantCounts(t, db, map[string]int{"b": 5})

	stopA() // removes the socket
	if name, err := ask(t.Context(), fixed); err == nil {
		t.Errorf("%s answered, although its socket is missing", name)
	}
	startUnixEcho(t, a, "new a")
	eventually(t, "the new server", func() error {
		name, err := ask(t.Context(), fixed)
		if err == nil && name != "new a" {
			err = fmt.Errorf("%q answered", name)
		}
		return err
	})
}

// A listener at a Unix socket serves before, during and after an upgrade, changes its mode at a reload, and takes its
// file away at the end.
func TestListenerAtAUnixSocket(t *testing.T) {
	t.Parallel()
	path, server := filepath.Join(shortTempDir(t), "db"), startEcho(t, "a").addr
	listen := func(words string) string {
		const text = "service \"db\" {\n  listen = %q\n  static { endpoints = [%q] }\n}\n"
		return fmt.Sprintf(text, "unix://"+path+words, server)
	}
	d := found(t, listen(" mode=0600"))
	connected := func() (net.Conn, error) {
		c, err := net.Dial("unix", path)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			err = hears(c, "a\n")
		}
		return c, err
	}
	open, err := connected()
	must(t, err)
	_, out := d.command(t, "connections")
	wantTexts(t, out, "tcp    unix  ")
	d.configure(t, listen(" mode=0660"))
	if code, out := d.command(t, "reload"); code != 0 {
		t.Errorf("reload: %s", out)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v, want the mode of the new configuration", info, err)
	}

	crowd := newCrowd(t)
	crowd.add("clients", func(int) error {
		c, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return hears(c, "a\n")
	})
	crowd.getOn(20)
	pid := 0
	for range 2 {
		pid = d.upgrade(t)
		crowd.getOn(20)
	}
	crowd.end()
	_, err = io.WriteString(open, "still here")
	must(t, err)
	must(t, hears(open, "still here"))

	must(t, syscall.Kill(pid, syscall.SIGTERM))
	eventually(t, "the socket is removed", func() error {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("it is there (%v)", err)
		}
		return nil
	})
}

// hears returns an error unless text comes next.
func hears(c net.Conn, text string) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("got %q, want %q", got, text)
	}
	return nil
}
