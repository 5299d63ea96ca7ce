package daemon

import (
	"context"
	"errors"
	"os"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/proxy"
)

// shown returns for each service which path it is on, as the API shows it. The result is nil if no service has asked
// for the kernel path yet, in this process or in an earlier one.
func (k *kernelKeeper) shown() map[string]admin.Path {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.used && !k.earlier.hasKernel() {
		return nil
	}
	all := make(map[string]admin.Path, len(k.services)+len(k.off))
	for name, why := range k.off {
		all[name] = admin.Path{Asked: k.asked[name], Why: why, Counters: k.countersLocked(name, kernel.Counters{})}
	}
	for name, s := range k.services {
		all[name] = k.shownLocked(s)
	}
	return all
}

// shownLocked returns the path of a service that is, or should be, on the kernel path.
func (k *kernelKeeper) shownLocked(s *kernelService) admin.Path {
	p := admin.Path{Asked: k.asked[s.name], Kernel: true, Active: map[string]int64{}, Picks: map[string]int64{}}
	switch {
	case s.problem != "":
		p.Kernel, p.Why = false, s.problem
	case len(s.members) == 0:
		p.Why = "no endpoint can be used now, so clients use the listener"
	}
	var sum kernel.Counters
	var each []kernel.EndpointCounters
	if k.path != nil {
		sum, each = k.path.Counters(s.name)
	}
	for _, e := range each {
		if m := s.known[e.Key]; m != nil {
			p.Active[m.ID] += int64(e.Open)
			p.Picks[m.ID] += int64(e.Picks)
		}
	}
	p.Counters = k.countersLocked(s.name, sum)
	return p
}

// countersLocked returns the counters of a service, with those of earlier times on the kernel path and of earlier
// processes. It returns nil if the service was never on it.
func (k *kernelKeeper) countersLocked(name string, now kernel.Counters) *admin.KernelCounters {
	c := k.past[name]
	c.Add(now)
	ended := k.cut[name]
	if t := k.earlier.of(name); t.Kernel != nil {
		c.Add(t.Kernel.Counters)
		ended += t.Kernel.Cut
	}
	if k.services[name] == nil && c == (kernel.Counters{}) {
		return nil
	}
	return &admin.KernelCounters{
		Connections: int64(c.Connections), ConnectionsActive: int64(c.Open), Abandoned: int64(c.Abandoned),
		DialsFailed: int64(c.Refused + c.Unreachable + c.TimedOut), DialsRefused: int64(c.Refused),
		DialsUnreachable: int64(c.Unreachable), DialsTimedOut: int64(c.TimedOut),
		BytesUp: int64(c.Sent), BytesDown: int64(c.Received), EndedLeft: ended,
	}
}

// totals returns what this process has counted on the kernel path, by service. Services without any count are left out.
func (k *kernelKeeper) totals() map[string]kernelTotals {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]kernelTotals{}
	add := func(name string, c kernel.Counters) {
		t := all[name]
		t.add(kernelTotals{Counters: c})
		all[name] = t
	}
	for name, c := range k.past {
		add(name, c)
	}
	for name := range k.services {
		if k.path != nil {
			c, _ := k.path.Counters(name)
			add(name, c)
		}
	}
	for name, t := range all {
		if t.Cut = k.cut[name]; t == (kernelTotals{}) {
			delete(all, name)
		} else {
			all[name] = t
		}
	}
	return all
}

// connections returns the connections on the kernel path, as the API shows them.
func (k *kernelKeeper) connections(ctx context.Context) ([]admin.Connection, error) {
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	if path == nil {
		return nil, nil
	}
	all, err := path.Sockets(ctx)
	if errors.Is(err, os.ErrClosed) { // a reload has closed it
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	shown := make([]admin.Connection, 0, len(all))
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range all {
		c := kernelConnection(&all[i])
		if s := k.services[all[i].Service]; s != nil && s.known[all[i].Key] != nil {
			m := s.known[all[i].Key]
			c.Endpoint, c.Address = m.ID, m.Address()
		}
		shown = append(shown, c)
	}
	return shown, nil
}

// kernelConnection returns a connection on the kernel path, without the ID of its endpoint. The endpoint sees the
// address of the client's socket.
func kernelConnection(s *kernel.Socket) admin.Connection {
	protocol := proxy.TCP
	if s.UDP {
		protocol = proxy.UDP
	}
	return admin.Connection{
		Path: admin.PathKernel, ID: s.ID, PID: s.PID, Program: s.Program,
		Service: s.Service, Protocol: protocol.String(), State: string(kernelState(s.State)),
		Client: s.Client.String(), Listener: s.Listener.String(), From: s.Client.String(), Address: s.Endpoint.String(),
		Age: s.Age.Seconds(), Idle: s.Idle.Seconds(), BytesUp: int64(s.Sent), BytesDown: int64(s.Received),
	}
}

func kernelState(s kernel.SocketState) proxy.ConnectionState {
	switch s {
	case kernel.SocketConnecting:
		return proxy.ConnectionConnecting
	case kernel.SocketHalfClosed:
		return proxy.ConnectionHalfClosed
	case kernel.SocketClosing:
		return proxy.ConnectionClosing
	}
	return proxy.ConnectionOpen
}
