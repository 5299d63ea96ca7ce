package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/consul/api"
)

// probers is how many identities take turns to be denied.
const probers = 50

// A probe watches the intentions of the service of a mesh. It has connections with the TLS of the mesh, each of an
// identity of its own, and an intention denies one identity at a time.
type probe struct {
	client  *api.Client
	addr    string
	configs []*tls.Config // by identity
	conns   []*tls.Conn   // by identity; the first ones have ended
	ended   int           // how many of conns have ended
}

// intentions returns a load of changes of an intention while n connections of another identity are open. Each change
// denies another identity, and allows the one before again. A change is done when the connection of the identity has
// been reset. When the last identity has had its turn, all connect again, which is not counted: the handshakes would
// cost the proxy more than the changes.
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
		p, err := newProbe(i)
		if err != nil {
			return nil, err
		}
		defer p.close()
		if err = p.connect(); err != nil {
			return nil, err
		}
		return b.cost(i, b.scaled(changes), 1, func(l *loop) error {
			for l.take() {
				if p.ended == probers {
					if err := b.apart(i, l, p.connect); err != nil {
						return err
					}
				}
				began := time.Now()
				if err := p.deny(); err != nil {
					l.failure(err)
					return nil
				}
				l.success(began)
			}
			return nil
		}, func(l *loop, _ int) error { return answered(fds, l) })
	}
}

// newProbe returns a probe at the instance's end of a mesh, with the certificates of all identities.
func newProbe(i *instance) (*probe, error) {
	client, err := i.mesh.agent.Client()
	if err != nil {
		return nil, err
	}
	p := &probe{client: client, addr: i.plan.Inbound.Listen.String()}
	for n := range probers {
		leaf, _, err := client.Agent().ConnectCALeaf(probeIdentity(n), nil)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
		if err != nil {
			return nil, err
		}
		p.configs = append(p.configs, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
			InsecureSkipVerify: true}) // the server is the bench's own
	}
	return p, nil
}

func probeIdentity(n int) string { return fmt.Sprint("probe-", n) }

// change makes the only intention deny a source.
func (p *probe) change(source string) error {
	_, _, err := p.client.ConfigEntries().Set(&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions,
		Name: meshService, Sources: []*api.SourceIntention{{Name: source, Action: api.IntentionActionDeny}}}, nil)
	return err
}

// connect allows all identities, and waits until each has a connection that is served.
func (p *probe) connect() error {
	p.close()
	if err := p.change("nobody"); err != nil {
		return err
	}
	for _, config := range p.configs {
		c, err := p.dial(config)
		for began := time.Now(); err != nil && time.Since(began) < answerTimeout; c, err = p.dial(config) {
			time.Sleep(5 * time.Millisecond) // the one before may be denied still
		}
		if err != nil {
			return err
		}
		p.conns = append(p.conns, c)
	}
	return nil
}

// dial returns a connection that is served.
func (p *probe) dial(config *tls.Config) (*tls.Conn, error) {
	c, err := tls.Dial("tcp", p.addr, config)
	if err != nil {
		return nil, err
	}
	var buf [messageSize]byte
	if err = c.SetDeadline(time.Now().Add(answerTimeout)); err == nil {
		err = request(c, opEcho, 0, messageSize, buf[:])
	}
	if err != nil {
		_ = c.Close() // it has failed
		return nil, err
	}
	return c, nil
}

// deny denies the next identity, and waits until its connection has ended.
func (p *probe) deny() error {
	next := p.ended
	if err := p.change(probeIdentity(next)); err != nil {
		return err
	}
	c := p.conns[next]
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	n, err := c.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) || err != nil && !isTimeout(err) {
		p.ended++
		return nil
	}
	return fmt.Errorf("a connection stays open after its identity was denied: %d bytes, %w", n, errOr(err))
}

// close closes all connections.
func (p *probe) close() {
	for _, c := range p.conns {
		_ = c.Close() // the work is done
	}
	p.conns, p.ended = nil, 0
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
