package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// This file has the loads whose clients speak TLS 1.3. All proxies get the same certificate (ECDSA, P-256), and clients
// offer one group (X25519) and prefer one suite (TLS_AES_128_GCM_SHA256), so that what is compared is not the choice.

// tlsFiles are the paths of a certificate, of its key, and of a file with both.
type tlsFiles struct{ Cert, Key, Both string }

// An authority is a certificate that signs itself, for 127.0.0.1.
type authority struct {
	files tlsFiles
	roots *x509.CertPool
}

// newAuthority makes an authority with its files in dir.
func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	a := &authority{roots: x509.NewCertPool(), files: tlsFiles{filepath.Join(dir, "cert.pem"),
		filepath.Join(dir, "key.pem"), filepath.Join(dir, "both.pem")}}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	a.roots.AppendCertsFromPEM(certPEM)
	for path, text := range map[string][]byte{a.files.Cert: certPEM, a.files.Key: keyPEM,
		a.files.Both: bytes.Join([][]byte{certPEM, keyPEM}, nil)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// config returns the configuration of a client. If resume is set, the client keeps sessions.
func (a *authority) config(resume bool) *tls.Config {
	c := &tls.Config{RootCAs: a.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, DynamicRecordSizingDisabled: true}
	if resume {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	return c
}

// dial opens a connection and does the handshake.
func (a *authority) dial(addr netip.AddrPort, config *tls.Config) (*tls.Conn, error) {
	dialer := net.Dialer{Timeout: answerTimeout}
	c, err := tls.DialWithDialer(&dialer, "tcp", addr.String(), config)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(measureLimit))
	}
	return c, err
}

// request makes a request on c, and reads an answer of size bytes into buf.
func request(c net.Conn, op byte, size int64, answer int, buf []byte) error {
	if _, err := c.Write(message(op, size)); err != nil {
		return err
	}
	for answer > 0 {
		n, err := c.Read(buf[:min(len(buf), answer)])
		if answer -= n; err != nil && answer > 0 {
			return err
		}
	}
	return nil
}

// openTLS opens n connections with TLS to an instance. Each has had an answer.
func (b *bench) openTLS(i *instance, n int) ([]net.Conn, error) {
	return openConns(n, func() (net.Conn, error) { return b.dialTLS(i) })
}

func (b *bench) dialTLS(i *instance) (net.Conn, error) {
	return b.authority.dial(i.addrs()[0], b.authority.config(false))
}

// openConns opens n connections. Each has had an answer.
func openConns(n int, dial func() (net.Conn, error)) ([]net.Conn, error) {
	var all []net.Conn
	for range n {
		c, err := dial()
		if err == nil {
			err = request(c, opEcho, 0, messageSize, make([]byte, messageSize))
		}
		if err != nil {
			closeConns(all)
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeConns(all []net.Conn) {
	for _, c := range all {
		_ = c.Close() // the work is done
	}
}

// share makes n clients take the loop's work until none is left. unit does one unit for a client.
func share(l *loop, n int, unit func(client int) error) error {
	var mu sync.Mutex
	var clients sync.WaitGroup
	next := func(began time.Time, err error) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			l.failure(err)
			return false
		case !began.IsZero():
			l.success(began)
		}
		return l.take()
	}
	for client := range n {
		clients.Go(func() {
			for began, err := (time.Time{}), error(nil); next(began, err); {
				began = time.Now()
				err = unit(client)
			}
		})
	}
	clients.Wait()
	return nil
}

func asCounted(*loop, int) error { return nil }

// tlsRequests returns a load of n kept connections. On each, requests and answers alternate.
func tlsRequests(n, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i := b.instances[place{t, tlsService}]
		conns, err := b.openTLS(i, n)
		if err != nil {
			return nil, err
		}
		defer closeConns(conns)
		buf := make([][messageSize]byte, n)
		return b.cost(i, b.scaled(work), 1, func(l *loop) error {
			return share(l, n, func(client int) error {
				return request(conns[client], opEcho, 0, messageSize, buf[client][:])
			})
		}, asCounted)
	}
}

// tlsBulk returns a load that moves work MiB over 4 connections.
func tlsBulk(op byte, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		const n = 4
		i := b.instances[place{t, tlsService}]
		conns, err := b.openTLS(i, n)
		if err != nil {
			return nil, err
		}
		defer closeConns(conns)
		part := b.scaled(work) / n
		return b.cost(i, n, gigabyte/float64(part), func(l *loop) error {
			return share(l, n, func(client int) error { return moveBulk(conns[client], op, part) })
		}, asCounted)
	}
}

// moveBulk moves so many MiB in one direction.
func moveBulk(c net.Conn, op byte, part int) error {
	size, buf := int64(part)*mib, make([]byte, bulkBuffer)
	if op == opDown {
		return request(c, op, size, int(size), buf)
	}
	if _, err := c.Write(message(op, size)); err != nil {
		return err
	}
	for left := size; left > 0; left -= bulkBuffer {
		if _, err := c.Write(buf[:min(left, bulkBuffer)]); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(c, buf[:messageSize])
	return err
}

// tlsConnects returns a load of new connections, 32 at a time, each with one request.
func tlsConnects(resume bool, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		const n = 32
		i := b.instances[place{t, tlsService}]
		var configs [n]*tls.Config // each client has its own sessions
		for client := range configs {
			configs[client] = b.authority.config(resume)
			if resume {
				if err := b.connectTLS(i, configs[client]); err != nil { // gets the first session
					return nil, err
				}
			}
		}
		return b.cost(i, b.scaled(work), 1, func(l *loop) error {
			return share(l, n, func(client int) error { return b.connectTLS(i, configs[client]) })
		}, asCounted)
	}
}

// connectTLS makes one request on a new connection to an instance.
func (b *bench) connectTLS(i *instance, config *tls.Config) error {
	return b.authority.connect(i.plan.Services[len(i.plan.Services)-1].Listen, config)
}

// connect opens a connection, makes one request, and closes the connection.
func (a *authority) connect(addr netip.AddrPort, config *tls.Config) error {
	c, err := a.dial(addr, config)
	if err != nil {
		return err
	}
	var buf [messageSize]byte
	err = request(c, opEcho, 0, messageSize, buf[:])
	_ = c.Close() // the work is done
	return err
}

// tlsIdle returns a load of n idle connections with TLS, each after 20 KB each way.
func tlsIdle(n int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		p, err := b.plan(backendCount, service{Name: tlsService, Protocol: "tcp", TLS: true})
		if err != nil {
			return nil, err
		}
		p.Pairs = n + 100
		i, err := b.launch(t, p)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		return b.idleUsed(i, n, 1, func() (net.Conn, error) { return b.dialTLS(i) })
	}
}

// idleUsed measures a new proxy that has n idle connections, each after 20 KB each way. Each is a pair at so many ends.
func (b *bench) idleUsed(i *instance, n, ends int, dial func() (net.Conn, error)) (sample, error) {
	warm, err := openUsed(32, dial)
	if err != nil {
		return nil, err
	}
	defer closeConns(warm)
	time.Sleep(settles)
	before, err := usageOf(i.group())
	if err != nil {
		return nil, err
	}
	conns, err := openUsed(n, dial)
	if err != nil {
		return nil, err
	}
	defer closeConns(conns)
	return b.rest(i, before, n*ends)
}

// openUsed opens n connections over which 20 KB have moved each way.
func openUsed(n int, dial func() (net.Conn, error)) ([]net.Conn, error) {
	const amount = 20_000
	conns, err := openConns(n, dial)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, amount)
	for _, c := range conns {
		if _, err = c.Write(append(message(opUp, amount), buf...)); err == nil {
			_, err = io.ReadFull(c, buf[:messageSize])
		}
		if err == nil {
			err = request(c, opDown, amount, amount, buf)
		}
		if err != nil {
			closeConns(conns)
			return nil, err
		}
	}
	return conns, nil
}
