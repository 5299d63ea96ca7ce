package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// This file has the loads over both ends of a mesh: a proxy takes clients without TLS into the mesh, and another one
// takes them out of it, to an instance without TLS. What is measured is the cost of both. Each target has an agent of
// its own, because a Lictor that serves its host's services to the mesh is the only one at its agent.

// An inbound is what the proxy at the instance's end is to serve.
type inbound struct {
	Listen netip.AddrPort // where the proxy speaks the TLS of the mesh
	Local  string         // the instance
	TLS    tlsFiles       // the certificate of the service
}

// startHops starts a target at both ends of a new mesh.
func (b *bench) startHops(t *target) (*instance, error) {
	p, err := b.plan(1, service{Name: meshService, Protocol: "tcp"})
	if err != nil {
		return nil, err
	}
	at, err := b.ports.next()
	if err != nil {
		return nil, err
	}
	m, err := startMesh(b.guard.dir)
	if err != nil {
		return nil, err
	}
	s := &p.Services[0]
	p.Mesh, p.Inbound = m.files, &inbound{Listen: at, Local: s.Endpoints[0], TLS: m.server}
	p.Pairs = 6000
	s.Mesh, s.Endpoints = true, []string{at.String()}
	if err = m.registerLocal(p.Inbound, t.registered); err == nil {
		var i *instance
		if i, err = b.launch(t, p); err == nil {
			i.mesh = m
			return i, nil
		}
	}
	m.stop()
	return nil, err
}

// registerLocal registers the instance, and also its sidecar unless the proxy does that itself.
func (m *mesh) registerLocal(in *inbound, sidecar bool) error {
	client, err := m.agent.Client()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(in.Local)
	if err != nil {
		return err
	}
	local, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	err = client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: meshService, Port: local})
	if !sidecar {
		return err
	}
	return errors.Join(err, client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Kind: api.ServiceKindConnectProxy, Name: meshService + "-sidecar", Address: "127.0.0.1",
		Port:  int(in.Listen.Port()),
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: meshService},
	}))
}

// hopsIdle returns a load of n idle connections over both ends, each after 20 KB each way. A pair is one at one end.
func hopsIdle(n int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i, err := b.startHops(t)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		const ends = 2
		return b.idleUsed(i, n, ends, func() (net.Conn, error) { return dialPlain(i.addrs()[0]) })
	}
}

// dialPlain opens a connection without TLS.
func dialPlain(addr netip.AddrPort) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr.String(), answerTimeout)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(measureLimit))
	}
	return c, err
}

// A prober is a client with the identity that changes of intentions are about.
type prober struct {
	client *api.Client
	config *tls.Config
	addr   string
	conn   *tls.Conn // open while the intention allows the identity
}

const probeIdentity = "probe"

// intentions returns a load of changes of an intention while n connections of another identity are open. A change is
// done when it has taken effect: the connection of the identity has been reset, or a new one is served.
func intentions(n, changes int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i, err := b.startHops(t)
		if err != nil {
			return nil, err
		}
		defer b.stop(i)
		fds, err := open(i.addrs(), n)
		if err != nil {
			return nil, fmt.Errorf("%w; it said: %s", err, i.log.Tail(5))
		}
		defer closeAll(fds)
		p, err := newProber(i)
		if err != nil {
			return nil, err
		}
		if err = p.allow(); err != nil {
			return nil, err
		}
		defer func() { _ = p.conn.Close() }() // the work is done
		s, err := b.cost(i, b.scaled(changes), 1, func(l *loop) error {
			return share(l, 1, func(int) error {
				if l.done%2 == 0 {
					return p.deny()
				}
				return p.allow()
			})
		}, func(l *loop, _ int) error { return answered(fds, l) })
		return s, err
	}
}

// newProber returns a client of the mesh at the instance's end.
func newProber(i *instance) (*prober, error) {
	client, err := i.mesh.agent.Client()
	if err != nil {
		return nil, err
	}
	leaf, _, err := client.Agent().ConnectCALeaf(probeIdentity, nil)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	return &prober{client: client, addr: i.plan.Inbound.Listen.String(), config: &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // so that attempts cost little beside the changes
		InsecureSkipVerify: true,                            // the server is the bench's own
	}}, err
}

// change changes the intention.
func (p *prober) change(action api.IntentionAction) error {
	_, _, err := p.client.ConfigEntries().Set(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions,
		Name: meshService, Sources: []*api.SourceIntention{{Name: probeIdentity, Action: action}}}, nil)
	return err
}

// deny denies the identity, and waits until its connection has ended.
func (p *prober) deny() error {
	if err := p.change(api.IntentionActionDeny); err != nil {
		return err
	}
	err := p.conn.SetDeadline(time.Now().Add(answerTimeout))
	if err != nil {
		return err
	}
	n, err := p.conn.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) || err != nil && !isTimeout(err) {
		_ = p.conn.Close() // it has ended
		return nil
	}
	return fmt.Errorf("a connection stays open after its identity was denied: %d bytes, %w", n, err)
}

// allow allows the identity, and waits until a connection is served.
func (p *prober) allow() (err error) {
	if err = p.change(api.IntentionActionAllow); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < answerTimeout; time.Sleep(5 * time.Millisecond) {
		var buf [messageSize]byte
		if p.conn, err = tls.Dial("tcp", p.addr, p.config); err != nil {
			continue
		}
		if err = p.conn.SetDeadline(time.Now().Add(answerTimeout)); err == nil {
			err = request(p.conn, opEcho, 0, messageSize, buf[:])
		}
		if err == nil {
			return nil
		}
		_ = p.conn.Close() // it has failed
	}
	return err
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// answered counts an error for each connection that does not answer any more.
func answered(fds []int, l *loop) error {
	after, err := newLoop(len(fds))
	if err != nil {
		return err
	}
	defer after.close()
	err = after.run(requestSlots(fds, len(fds)), measureLimit)
	if l.errors += after.errors; after.lastErr != nil {
		l.lastErr = after.lastErr
	}
	return err
}
