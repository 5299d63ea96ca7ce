//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// sessionsAtOnce is how many sessions are read in one system call.
const sessionsAtOnce = 4096

// Sockets returns the sockets of clients that this Path has sent to endpoints, sorted by ID and service. They exclude
// sockets of services that were removed, and sockets that have ended. Traffic does not wait for Sockets. Its cost grows
// with the number of sockets that are connected to the ports of endpoints, or, if the endpoints have over 64 different
// ports, with the number of all sockets in the network namespace.
func (p *Path) Sockets(ctx context.Context) ([]Socket, error) {
	p.mu.Lock()
	if p.table == nil {
		p.mu.Unlock()
		return nil, os.ErrClosed
	}
	wanted, err := p.listingLocked()
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	all, err := wanted.read(ctx)
	if err != nil {
		return nil, err
	}
	now, err := monotonic()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == nil {
		return nil, os.ErrClosed
	}
	l := socketLister{Path: p, now: now}
	if l.sessions, err = p.sessionsLocked(all); err == nil {
		err = p.readStoredUDPLocked(all)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		l.add(s)
	}
	slices.SortFunc(l.found, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Service, b.Service))
	})
	return l.found, nil
}

// A pairing is a session with its key.
type pairing struct {
	programSessionKey
	programSession
}

// sessionsLocked returns the sessions of UDP sockets, by socket.
func (p *Path) sessionsLocked(sockets []*diagSocket) (map[uint64][]pairing, error) {
	udp := func(s *diagSocket) bool { return s.protocol == unix.IPPROTO_UDP }
	if !slices.ContainsFunc(sockets, udp) {
		return nil, nil
	}
	all := map[uint64][]pairing{}
	keys, values := make([]programSessionKey, sessionsAtOnce), make([]programSession, sessionsAtOnce)
	for cursor := new(ebpf.MapBatchCursor); ; {
		n, err := p.objects.Sessions.BatchLookup(cursor, keys, values, nil)
		for i, key := range keys[:n] {
			all[key.Cookie] = append(all[key.Cookie], pairing{key, values[i]})
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) { // these were the last
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read UDP sessions: %w", err)
		}
	}
}

// A socketLister makes Sockets of what was read. It is used with the mutex of the Path.
type socketLister struct {
	*Path
	now      uint64 // nanoseconds, as the programs note times
	sessions map[uint64][]pairing
	found    []Socket
}

func (l *socketLister) add(s *diagSocket) {
	one := Socket{ID: s.cookie(), UDP: s.protocol == unix.IPPROTO_UDP, Client: s.local(), State: SocketOpen}
	if one.UDP {
		l.addSessions(one)
	}
	owner, ok := l.ownerLocked(s.stored.Endpoint, s.stored.Generation)
	if !ok || !s.isSent() {
		return
	}
	one.setUser(&s.stored.User)
	one.Service, one.Key = owner.service.name, owner.place.key
	one.Listener, one.Endpoint = addrPortOf(s.stored.Asked, s.stored.AskedPort), s.peer()
	one.Age = l.since(s.stored.Started)
	if !one.UDP {
		one.describeTCP(s)
	}
	l.found = append(l.found, one)
}

// addSessions adds the sessions of a UDP socket. A session whose endpoint has left, or that was idle for too long, is
// over: the next datagram begins another one.
func (l *socketLister) addSessions(one Socket) {
	for _, x := range l.sessions[one.ID] {
		owner, ok := l.ownerLocked(x.Endpoint, x.Generation)
		if !ok || atomic.LoadUint32(&l.table.endpoints[x.Endpoint].Left) != 0 {
			continue
		}
		timeout := atomic.LoadUint64(&l.table.services[x.Service].Timeout)
		one.Age, one.Idle = l.since(x.Began), l.since(x.Used)
		if timeout > 0 && one.Idle >= time.Duration(timeout) {
			continue
		}
		one.Service, one.Key, one.Endpoint = owner.service.name, owner.place.key, owner.place.addr
		one.setUser(&x.User)
		one.Listener = addrPortOf(x.Asked, x.Port)
		l.found = append(l.found, one)
	}
}

// describeTCP adds what the kernel knows of a TCP socket. Its figures of bytes include SYN and FIN.
func (one *Socket) describeTCP(s *diagSocket) {
	fins := struct{ acknowledged, received uint64 }{}
	switch s.State {
	case unix.BPF_TCP_SYN_SENT:
		one.State, one.Idle = SocketConnecting, one.Age
		return
	case unix.BPF_TCP_FIN_WAIT1:
		one.State = SocketHalfClosed
	case unix.BPF_TCP_FIN_WAIT2:
		one.State, fins.acknowledged = SocketHalfClosed, 1
	case unix.BPF_TCP_CLOSE_WAIT:
		one.State, fins.received = SocketHalfClosed, 1
	case unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		one.State, fins.received = SocketClosing, 1
	}
	i := &s.info
	one.Sent = i.Bytes_acked - min(i.Bytes_acked, 1+fins.acknowledged)
	one.Received = i.Bytes_received - min(i.Bytes_received, fins.received)
	idle := time.Duration(min(i.Last_data_sent, i.Last_data_recv)) * time.Millisecond
	one.Idle = min(idle, one.Age)
}

// since returns the time since the programs noted a time. It is at least a nanosecond.
func (l *socketLister) since(noted uint64) time.Duration {
	return time.Duration(max(int64(l.now-noted), 1))
}

// monotonic returns the time as the programs note it, in nanoseconds.
func monotonic() (uint64, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return uint64(now.Nano()), os.NewSyscallError("clock_gettime", err)
}

func (one *Socket) setUser(p *programProcess) {
	name, _, _ := bytes.Cut(bytesOf(&p.Name), []byte{0})
	one.PID, one.Program = p.Pid, string(name)
}

// addrPortOf is the inverse of addressOf and portOf.
func addrPortOf(a programAddress, port uint16) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(bytesOf(&a.Words))).Unmap()
	return netip.AddrPortFrom(ip, portOf(port))
}
