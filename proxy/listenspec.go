package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// An Inherited is a socket that was open before the Proxier: systemd opened it, or an earlier process. It is bound,
// a TCP one listens. Several UDP sockets of one address are a group that shares its port: one listener has all of
// them.
type Inherited struct {
	Protocol Protocol
	Addr     netip.AddrPort // that a listener is asked for as
	Service  string         // of the listener, if it was asked for with port 0
	File     *os.File
}

// A listenSpec says how to open the socket of a listener, or which open socket to use.
type listenSpec struct {
	addr   netip.AddrPort
	shared bool       // sockets of ours may be bound to the port on other addresses, see proxySocket.shareAddress
	file   *os.File   // the socket is open already, and is this; nil: it is to be opened
	more   []*os.File // the rest of its group
	udp    int        // how many UDP listeners the Proxier is to have

	cutAll context.Context // ends when all sockets of the Proxier are about to be cut; nil: never
}

// cut returns a context that ends when the socket's connections are to be cut. Slots freed after that are not given to
// queued clients, of this listener or another one of the service. The caller must cancel it.
func (o listenSpec) cut() (context.Context, context.CancelFunc) {
	if o.cutAll == nil {
		return context.WithCancel(context.Background())
	}
	ctx, cancel := context.WithCancel(o.cutAll)
	return cutContext{ctx, o.cutAll}, cancel
}

// A cutContext has an error as soon as all sockets are to be cut. The contexts of the sockets end one after the
// other, so without it the first socket would free slots before the last one knows.
type cutContext struct {
	context.Context
	all context.Context
}

func (c cutContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	return c.all.Err()
}

// listenConfig opens what package net has to.
func (o listenSpec) listenConfig() net.ListenConfig {
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	if o.shared {
		config.Control = sys.ReusePort
	}
	return config
}

// inheritedByKey returns the sockets that were inherited, by what they are asked for as.
func (p *Proxier) inheritedByKey() map[socketKey][]*os.File {
	all := make(map[socketKey][]*os.File, len(p.inherited))
	for _, one := range p.inherited {
		all[one.socketKey()] = append(all[one.socketKey()], one.File)
	}
	return all
}

// namingInherited returns err, with which the socket of key could not be opened, or a better error if an inherited
// socket has the port: then it is no other process that must be stopped. In an upgrade err stays as it is.
func (p *Proxier) namingInherited(key socketKey, s *service, err error) error {
	if p.held || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	argument := map[Protocol]string{TCP: "ListenStream", UDP: "ListenDatagram"}[key.protocol]
	for _, one := range p.inherited {
		if one.Protocol == key.protocol && one.Addr.Port() == key.addr.Port() {
			return fmt.Errorf("service %q: listen on %s: the socket that this process has inherited is at %s. "+
				"Write listen = %q, or %s=%s in the .socket unit",
				s.name(), key.addr, one.Addr, one.Addr, argument, key.addr)
		}
	}
	return err
}

func (one *Inherited) socketKey() socketKey {
	return socketKey{protocol: one.Protocol, addr: one.Addr, name: one.Service}
}

// DropInherited closes the inherited sockets that no listener has taken, and returns them. Sockets stay at hand
// until then, also over an Apply that failed.
func (p *Proxier) DropInherited() []Inherited {
	p.mu.Lock()
	defer p.mu.Unlock()
	var unused []Inherited
	for _, one := range p.inherited {
		if !p.usesLocked(one) {
			unused = append(unused, one)
		}
		_ = one.File.Close() // the listeners have descriptors of their own
	}
	p.inherited = nil
	return unused
}

func (p *Proxier) usesLocked(one Inherited) bool {
	_, ok := p.sockets[one.socketKey()]
	return ok
}
