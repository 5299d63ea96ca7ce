package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// Twenty upgrades under load fail no client, and in the end the last process has counted all that clients did in any
// process: connections, failures and bytes over TCP, and sockets over UDP. Of the others nothing is left.
func TestKernelPathIsUpgradedUnderLoad(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	d := found(t, onPath(group, service("web", endpoints(startEcho(t, "a"), startEcho(t, "b"))),
		service("down", static(deadAddr(t))),
		service("dns", udp, static(startWhence(t, "a"), startWhence(t, "b"))),
		service("log", udp, static(startUDP(t, "a").addr, startUDP(t, "b").addr))))
	to := map[string]netip.AddrPort{}
	for _, name := range []string{"web", "down", "dns", "log"} {
		to[name] = d.addr(t, name)
	}
	programs := group.Programs(t)
	must(t, group.Enter())
	var web, down, dns did
	clients := newCrowd(t)
	for range 4 {
		clients.add("connection", func(i int) error { return web.connect(t, to["web"], i%5000) })
	}
	clients.add("failure", func(int) error {
		if err := down.connect(t, to["down"], 0); err == nil {
			return errors.New("a dead instance answers")
		}
		return nil
	})
	kept := mustConnect(t, to["web"])
	web.connections.Add(1)
	web.down.Add(int64(len(kept.name) + 1))
	clients.add("request over a kept connection", func(i int) error { return web.echo(kept, i%5000) })
	connected := clients.addUDP(to["dns"], to["log"], &dns)
	n := upgrades(t, 20)
	pid := d.Pid()
	for i := 0; i < n && !t.Failed(); i++ {
		clients.getOn(5)
		pid = d.upgrade(t)
	}
	clients.getOn(10)
	clients.end()
	must(t, kept.Close())
	must(t, connected.Close())
	t.Logf("%d upgrades: %s; none failed: %v", n, clients, !t.Failed())
	eventually(t, "all that clients did is counted", func() error {
		got := d.figures(t)
		for name, want := range map[string]trafficFigures{"web": web.figures(), "dns": dns.figures()} {
			if got[name] != (serviceFigures{want, want}) {
				return fmt.Errorf("%s: got %+v, want %+v", name, got[name], want)
			}
		}
		if f, want := got["down"].Kernel.Failed, down.failed.Load(); f != want || want == 0 {
			return fmt.Errorf("got %d failures, want %d", f, want)
		}
		return nil
	})
	eventually(t, "the programs of one process", func() error {
		if n, all := group.Programs(t), d.processes(t); n != programs || len(all) != 1 {
			return fmt.Errorf("%d programs, want %d; processes %v, want %d", n, programs, all, pid)
		}
		return nil
	})
	must(t, testproc.Freeze(pid))
	wantCounts(t, to["web"], map[string]int{"a": 5, "b": 5})
	must(t, syscall.Kill(pid, syscall.SIGCONT))
}

// A connection that was made before an upgrade is cut when its endpoint leaves, though the old process forwards
// nothing. Those of the new process to other endpoints stay. Without a connection, the old process ends.
func TestKernelPathCutsAfterUpgrades(t *testing.T) {
	t.Parallel()
	findConsul(t)
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	c := startConsul(t, testconsul.Options{})
	c.register(t, "db", "a", startEcho(t, "a").addr)
	d := found(t, onPath(group, consulBlock(c), service("db", `on_leave = "cut"`, `consul { drop_hold = "0s" }`)))
	db := d.addr(t, "db")
	must(t, group.Enter())
	awaitRotation(t, db, "a")
	old := mustConnect(t, db)
	d.upgrade(t)
	c.register(t, "db", "b", startEcho(t, "b").addr)
	awaitRotation(t, db, "a", "b")
	next := mustConnect(t, db)
	for next.name != "b" {
		next = mustConnect(t, db)
	}
	c.deregister(t, "a")
	must(t, old.SetReadDeadline(time.Now().Add(patience)))
	if _, err := old.reader.ReadByte(); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("got %v, want aborted", err)
	}
	next.mustEcho(t, "still there?")
	eventually(t, "one process is left", func() error {
		if all := d.processes(t); len(all) != 1 || all[0] == d.Pid() {
			return fmt.Errorf("processes %v", all)
		}
		return nil
	})
	if d.figures(t)["db"].Kernel.Cut == 0 {
		t.Error("the last process does not count the connections that the first one has cut")
	}
}

// addUDP adds UDP clients on the kernel path: sockets that stay connected, sockets that connect for one exchange, and
// sockets that are not connected, all of which get each answer from the address of the service. dns must have instances
// of startWhence, log those of startUDP. addUDP returns the socket that stays connected.
func (l *crowd) addUDP(dns, log netip.AddrPort, done *did) *udpClient {
	long, first := dialUDP(l, dns), ""
	done.connections.Add(1)
	l.add("exchange of a connected socket", func(int) error {
		got, err := exactly(long, "whence")
		if first == "" {
			first = got
		}
		if err == nil && got != first {
			err = fmt.Errorf("now served as %q, was %q", got, first)
		}
		return err
	})
	l.add("new connected socket", func(int) error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dns))
		if err != nil {
			return err
		}
		defer c.Close()
		done.connections.Add(1)
		_, err = exactly(&udpClient{c}, "whence")
		return err
	})
	s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(l, err)
	l.Cleanup(func() { _ = s.Close() })
	buf := make([]byte, 64)
	l.add("exchange of a socket that is not connected", func(int) error {
		_ = s.SetDeadline(time.Now().Add(patience))
		if _, err := s.WriteToUDPAddrPort(who, log); err != nil {
			return err
		}
		_, from, err := s.ReadFromUDPAddrPort(buf)
		if err == nil && from != log {
			err = fmt.Errorf("the answer comes from %v, want %v", from, log)
		}
		return err
	})
	return long
}
