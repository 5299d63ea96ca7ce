package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// An Inherited is a socket that was opened before the Proxier, by systemd or by an earlier process. The socket is
// already bound, and a TCP socket already listens. Several UDP sockets with one address form a group that shares a
// port; one listener gets all of them.
type Inherited struct {
	Protocol Protocol
	Addr     lb.Addr // the configured address of the listener
	Service  string  // name of the listener's service, if its configured port is 0
	File     *os.File

	// Foreign says that the file of a Unix socket belongs to systemd. Lictor then never removes the file, and leaves
	// its mode and owner alone.
	Foreign bool
}

// A listenSpec says how to open the socket of a listener, or which open socket to use.
type listenSpec struct {
	addr   lb.Addr
	shared bool       // other listeners may bind overlapping addresses, see proxySocket.shareAddress
	file   *os.File   // the first open socket of the group; nil means that a socket must be opened
	more   []*os.File // the other open sockets of the group
	udp    int        // how many UDP listeners the Proxier will have
	routes *routes    // see tenants; nil for UDP

	cutAll context.Context // ends just before all sockets of the Proxier are cut; nil means never
}

// cut returns a context that ends when the socket's connections are to be cut. After that, freed slots are not given to
// queued clients of any listener of the service. The caller must cancel the context.
func (o listenSpec) cut() (context.Context, context.CancelFunc) {
	if o.cutAll == nil {
		return context.WithCancel(context.Background())
	}
	ctx, cancel := context.WithCancel(o.cutAll)
	return cutContext{ctx, o.cutAll}, cancel
}

// A cutContext has an error as soon as all sockets are to be cut. The contexts of single sockets end one after the
// other. Without cutContext, the first socket would free slots for queued clients of a socket that is about to be cut.
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

// listenConfig returns the options with which package net opens the socket.
func (o listenSpec) listenConfig() net.ListenConfig {
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	if o.shared {
		config.Control = sys.ReusePort
	}
	return config
}

// inheritedByKey returns the inherited sockets by the key of their listener.
func (p *Proxier) inheritedByKey() map[socketKey][]*os.File {
	all := make(map[socketKey][]*os.File, len(p.inherited))
	for _, one := range p.inherited {
		all[one.socketKey()] = append(all[one.socketKey()], one.File)
	}
	return all
}

// namingInherited returns a better error than err if an inherited socket already has the port of key. With an inherited
// socket on the port, the operator must change the configuration, not stop another process. During an upgrade it
// returns err as it is.
func (p *Proxier) namingInherited(key socketKey, s *service, err error) error {
	if p.held || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	argument := map[Protocol]string{TCP: "ListenStream", UDP: "ListenDatagram"}[key.protocol]
	for _, one := range p.inherited {
		if one.Addr.Path == "" && key.addr.Path == "" && one.Protocol == key.protocol &&
			one.Addr.AddrPort.Port() == key.addr.AddrPort.Port() {
			return fmt.Errorf("service %q: listen on %s: this process has inherited a socket for %s. "+
				"Write listen = %q, or %s=%s in the .socket unit",
				s.name(), key.addr, one.Addr, one.Addr, argument, key.addr)
		}
	}
	return err
}

// isForeign reports whether the file of a Unix socket belongs to systemd; see Inherited.
func (p *Proxier) isForeign(key socketKey) bool {
	return slices.ContainsFunc(p.inherited, func(one Inherited) bool { return one.Foreign && one.socketKey() == key })
}

func (one *Inherited) socketKey() socketKey {
	return socketKey{protocol: one.Protocol, addr: one.Addr, name: one.Service}
}

// DropInherited closes the inherited sockets that no listener uses, and returns these. Before that call, inherited
// sockets stay available, even after an Apply that failed.
func (p *Proxier) DropInherited() []Inherited {
	p.mu.Lock()
	defer p.mu.Unlock()
	var unused []Inherited
	for _, one := range p.inherited {
		if !p.usesLocked(one) {
			unused = append(unused, one)
		}
		_ = one.File.Close() // the listeners have duplicates
	}
	p.inherited = nil
	return unused
}

func (p *Proxier) usesLocked(one Inherited) bool {
	_, ok := p.sockets[one.socketKey()]
	return ok
}
