package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// This file has the loads during which other clients flood the proxy with TLS handshakes. The flood has a process of
// its own. In the process that measures, the computing of the clients would hold up the measuring thread: the Go
// scheduler would give it a processor only after some of the clients.

// tlsFlood returns a load of requests without TLS on n kept connections, while so many other clients make one TLS
// handshake after the other. The main figure compares the 99th percentile of the latency with that without a flood.
// kind is a key of floodClients.
func tlsFlood(n, work int, kind string, clients int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		p, err := b.plan(backendCount, service{Name: webService, Protocol: "tcp"},
			service{Name: tlsService, Protocol: "tcp", TLS: true})
		if err != nil {
			return nil, err
		}
		i, err := b.launch(t, p)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		fds, err := open(i.addrs()[:1], n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		calm, err := b.traffic(i, b.scaled(work), 1, requestSlots(fds, n))
		if err != nil {
			return nil, err
		}
		stop, err := b.startFlood(kind, clients, i.plan.Services[len(i.plan.Services)-1].Listen)
		if err != nil {
			return nil, err
		}
		s, err := b.traffic(i, b.scaled(work), 1, requestSlots(fds, n))
		rate, failed := stop()
		if err == nil {
			s[mP99Ratio], s[mFlood], err = ratio(s[mP99], calm[mP99]), rate, failed
		}
		return s, err
	}
}

// startFlood starts a process with n clients that flood the listener at addr. stop ends it, and returns how many
// handshakes succeeded per second.
func (b *bench) startFlood(kind string, n int, addr netip.AddrPort) (stop func() (rate float64, err error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "flood", kind, strconv.Itoa(n), addr.String(), b.authority.files.Cert)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	process, err := b.pins.start(cmd, b.pins.rest)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil { // printed when the flood has begun
		process.Kill()
		return nil, fmt.Errorf("the flood says %q: %w", line, err)
	}
	return func() (float64, error) {
		defer process.Stop(syscall.SIGTERM, time.Second)
		if err := in.Close(); err != nil {
			return 0, err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0, fmt.Errorf("the flood says %q: %w", line, err)
		}
		return strconv.ParseFloat(strings.TrimSpace(line), 64)
	}, nil
}

// floodClients make the clients of a flood, by the name of a kind. The clients get the address of the proxy.
var floodClients = map[string]func(*authority) (func(netip.AddrPort) error, error){
	fullHandshakes: fullHandshakeClients, preparedHellos: preparedHelloClients,
}

// The kinds of floods.
const (
	fullHandshakes = "full"
	preparedHellos = "hellos"
)

// serveFlood floods the listener at addr by n clients until the standard input ends, and prints how many handshakes
// succeeded per second. The proxy has the certificate in the file cert.
func serveFlood(kind, n, addr, cert string) error {
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	clients, known := floodClients[kind]
	if !known {
		return fmt.Errorf("there is no flood %q", kind)
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		return err
	}
	a := &authority{roots: x509.NewCertPool()}
	if !a.roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s has no certificate", cert)
	}
	client, err := clients(a)
	if err != nil {
		return err
	}
	if err := client(to); err != nil { // a flood in which nothing succeeds is none
		return err
	}
	stop := flood(count, func() error { return client(to) })
	fmt.Println("begun")
	_, err = io.Copy(io.Discard, os.Stdin)
	fmt.Println(stop())
	time.Sleep(time.Minute) // until it is stopped: what an ended process has printed may be lost
	return err
}

// flood makes n clients connect, one time after the other, until stop is called. stop returns how many succeeded per
// second.
func flood(n int, connect func() error) (stop func() (rate float64)) {
	var over atomic.Bool
	var done atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range n {
		clients.Go(func() {
			for !over.Load() {
				if connect() == nil { // a flood may fail
					done.Add(1)
				}
			}
		})
	}
	return func() float64 {
		over.Store(true)
		rate := float64(done.Load()) / time.Since(began).Seconds()
		clients.Wait()
		return rate
	}
}

// fullHandshakeClients do full handshakes, and make a request each.
func fullHandshakeClients(a *authority) (func(netip.AddrPort) error, error) {
	return func(addr netip.AddrPort) error { return a.connect(addr, a.config(false)) }, nil
}

// preparedHelloClients all send the same ClientHello, and leave when they have the answer. For them a
// handshake costs next to nothing, as for clients on other hosts.
func preparedHelloClients(a *authority) (func(netip.AddrPort) error, error) {
	hello, err := a.hello()
	if err != nil {
		return nil, err
	}
	return func(addr netip.AddrPort) error {
		c, err := net.DialTimeout("tcp", addr.String(), answerTimeout)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetLinger(0) // otherwise the ports would run out
		if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		if _, err := c.Write(hello); err != nil {
			return err
		}
		var kind [1]byte
		if _, err := c.Read(kind[:]); err != nil {
			return err
		}
		if kind[0] != 22 { // RFC 8446, section 5.1: a record of the handshake
			return fmt.Errorf("a ClientHello is answered by a record of type %d", kind[0])
		}
		return nil
	}, nil
}

// hello returns the first record of a client.
func (a *authority) hello() ([]byte, error) {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, a.config(false)).Handshake() // fails when the pipe is closed
	}()
	hello := make([]byte, 1<<14)
	n, err := server.Read(hello) // crypto/tls writes a record at once
	return hello[:n], err
}
