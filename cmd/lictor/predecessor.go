package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A predecessor is the process whose place this one is to take, as this one sees it. Nil is none: every method does what is right then.
type predecessor struct {
	conn    messenger
	sockets []proxy.Inherited
	admin   *os.File // nil: it has no admin API
	address string   // of that
	state   handedState

	tookAdmin bool
}

// A messenger is a *handover.Conn.
type messenger interface {
	Send(v any, fds ...int) error
	Receive(v any) (fds []int, err error)
	SetDeadline(t time.Time) error
	Close() error
}

// findPredecessor returns the process that has started this one to take its place, with what it offers; nil if there is none.
func findPredecessor(getenv func(string) string) (*predecessor, error) {
	text := getenv(handoverVariable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is no descriptor", handoverVariable, text)
	}
	p := &predecessor{}
	if p.conn, err = dialPredecessor(fd); err != nil {
		return nil, fmt.Errorf("%s: %w", handoverVariable, err)
	}
	_ = p.conn.SetDeadline(time.Now().Add(upgradeTime)) // it fails only if it is closed
	if err := p.receiveOffer(); err != nil {
		p.failed(err)
		return nil, err
	}
	return p, nil
}

func (p *predecessor) receiveOffer() error {
	for {
		var m handoverMessage
		fds, err := p.conn.Receive(&m)
		if err != nil {
			return fmt.Errorf("the earlier process: %w", err)
		}
		if m.Kind != kindOffer || m.Version != handoverVersion || len(fds) != len(m.Sockets) {
			closeDescriptors(fds)
			return fmt.Errorf("the earlier process speaks version %d of the hand-over, this one %d: restart instead", m.Version, handoverVersion)
		}
		for i, s := range m.Sockets {
			if err := p.take(s, os.NewFile(uintptr(fds[i]), s.Addr)); err != nil {
				closeDescriptors(fds[i+1:])
				return err
			}
		}
		if !m.More {
			if m.State != nil {
				p.state = *m.State
			}
			return nil
		}
	}
}

func (p *predecessor) take(s handedSocket, f *os.File) error {
	if s.Protocol == adminSocket {
		p.admin, p.address = f, s.Addr
		return nil
	}
	one := proxy.Inherited{Service: s.Service, File: f}
	if s.Protocol == proxy.UDP.String() {
		one.Protocol = proxy.UDP
	}
	var err error
	one.Addr, err = netip.ParseAddrPort(s.Addr)
	p.sockets = append(p.sockets, one)
	return err
}

func closeDescriptors(fds []int) {
	for _, fd := range fds {
		_ = os.NewFile(uintptr(fd), "").Close() // there is nothing in it
	}
}

// failed tells why this process does not take over. The predecessor goes on.
func (p *predecessor) failed(reason error) {
	if p != nil {
		_ = p.conn.Send(handoverMessage{Kind: kindFailed, Reason: reason.Error()}) // else it says that this process has ended
		_ = p.conn.Close()
	}
}

// inherited are the sockets of its listeners.
func (p *predecessor) inherited() []proxy.Inherited {
	if p == nil {
		return nil
	}
	return p.sockets
}

// saved is what it knew of Consul.
func (p *predecessor) saved() []byte {
	if p == nil {
		return nil
	}
	return p.state.Saved
}

// links are what it followed from one of its services to another.
func (p *predecessor) links() []cycles.Link {
	if p == nil {
		return nil
	}
	return p.state.Links
}

// restore makes what it served what this process serves until it knows better, and tells whether that is all that there is to serve.
func (p *predecessor) restore(sets *admin.Sets, cfg *config.Config) bool {
	if p == nil {
		return false
	}
	wanted := map[string]bool{}
	for _, name := range consulNames(cfg) {
		wanted[name] = true
	}
	known := slices.DeleteFunc(slices.Clone(p.state.Sets), func(u lb.Endpoints) bool { return !wanted[u.Service] })
	sets.Import(known, p.state.Drained)
	return len(known) == len(wanted)
}

// adminListener is its listener of the admin API, if cfg wants one that it has.
func (p *predecessor) adminListener(cfg config.Admin, log hclog.Logger) net.Listener {
	if p == nil || p.admin == nil {
		return nil
	}
	defer func() { _ = p.admin.Close() }() // the listener has a descriptor of its own
	a, err := admin.ParseAddress(p.address)
	if err != nil || !wantsAdmin(cfg, a) {
		return nil
	}
	l, err := admin.Inherit(a, p.admin)
	if err != nil {
		log.Warn("admin API not taken over", "error", err)
		return nil
	}
	p.tookAdmin = true
	return l
}

// hasAdmin tells whether its listener of the admin API is used here too.
func (p *predecessor) hasAdmin() bool { return p != nil && p.tookAdmin }

// wantsAdmin tells whether cfg wants the admin API at a.
func wantsAdmin(cfg config.Admin, a admin.Address) bool {
	switch {
	case cfg.Off:
		return false
	case cfg.Socket != "":
		return a.Socket == cfg.Socket
	case cfg.TCP.IsValid():
		return a.TCP == cfg.TCP || cfg.TCP.Port() == 0 && a.TCP.Addr() == cfg.TCP.Addr()
	}
	return slices.Contains(admin.DefaultSockets(os.Getenv), a.Socket)
}

// sessions says that this process is ready, and returns the UDP sessions: it has to serve from here on.
func (p *predecessor) sessions() (all []proxy.Session, err error) {
	defer func() {
		if err != nil {
			for _, x := range all {
				closeDescriptors([]int{x.FD})
			}
		}
	}()
	b := newBuild()
	if err := p.conn.Send(handoverMessage{Kind: kindReady, Admin: p.tookAdmin, Build: &b}); err != nil {
		return nil, fmt.Errorf("the earlier process: %w", err)
	}
	_ = p.conn.SetDeadline(time.Now().Add(switchTime))
	for {
		var m handoverMessage
		fds, err := p.conn.Receive(&m)
		switch {
		case err != nil:
			return all, fmt.Errorf("the earlier process: %w", err)
		case m.Kind == kindGo && len(fds) == 0:
			return all, nil
		case m.Kind != kindSessions || len(fds) != len(m.Sessions):
			closeDescriptors(fds)
			return all, fmt.Errorf("the earlier process says %q with %d descriptors", m.Kind, len(fds))
		}
		for i, x := range m.Sessions {
			x.FD = fds[i]
			all = append(all, x)
		}
	}
}

// serving says that this process serves, and returns when the predecessor has let go of all else, or has ended.
func (p *predecessor) serving() error {
	defer func() { _ = p.conn.Close() }() // everything is said
	err := p.conn.Send(handoverMessage{Kind: kindServing})
	var m handoverMessage
	if err == nil {
		var fds []int
		fds, err = p.conn.Receive(&m)
		closeDescriptors(fds)
	}
	if err == nil && m.Kind != kindMain {
		err = errors.New("it says " + strconv.Quote(m.Kind))
	}
	return err
}
