//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A lister lists what UDP sockets store.
type lister struct {
	program *ebpf.Program
	link    *link.Iter
}

// newLister loads the program. It uses a map of the path.
func newLister(p *programObjects) (*lister, error) {
	spec, err := loadLister()
	if err != nil {
		return nil, err
	}
	var o listerPrograms // without maps that it does not use
	options := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{listerMapSockets: p.Sockets}}
	if err := spec.LoadAndAssign(&o, &options); err != nil {
		return nil, err
	}
	l := &lister{program: o.ListUdp}
	if l.link, err = link.AttachIter(link.IterOptions{Program: l.program}); err != nil {
		_ = l.program.Close()
		return nil, err
	}
	return l, nil
}

// read returns what connected sockets store, by their cookies.
func (l *lister) read() (map[uint64]programSocket, error) {
	var b bytes.Buffer
	if err := iterate(l.link, &b); err != nil {
		return nil, err
	}
	type listed struct { // struct listed
		cookie uint64
		stored programSocket
	}
	all := map[uint64]programSocket{}
	for size := int(unsafe.Sizeof(listed{})); b.Len() >= size; {
		one := valueOf[listed](b.Next(size))
		all[one.cookie] = one.stored
	}
	return all, nil
}

func (l *lister) close() {
	_ = l.link.Close()
	_ = l.program.Close()
}

// A listing says which sockets are to be read. It can be used without the mutex of the Path.
type listing struct {
	sockets *ebpf.Map          // what they store
	ports   map[uint8][]uint16 // of endpoints, by protocol
}

// listingLocked returns a listing of all sockets that may be on the path. Use it once.
func (p *Path) listingLocked() (l listing, err error) {
	l.ports = map[uint8][]uint16{}
	for _, o := range p.table.owners {
		protocol := uint8(unix.IPPROTO_TCP)
		if o.service.udp {
			protocol = unix.IPPROTO_UDP
		}
		l.ports[protocol] = append(l.ports[protocol], o.place.addr.Port())
	}
	l.sockets, err = p.objects.Sockets.Clone()
	return l, err
}

// read returns the sockets that are connected to these ports, and UDP sockets that are not connected. Of TCP it returns
// only sockets that store something.
func (l listing) read(ctx context.Context) (all []*diagSocket, err error) {
	defer func() { _ = l.sockets.Close() }()
	d, err := openSockDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	for protocol, ports := range l.ports {
		if protocol == unix.IPPROTO_UDP {
			ports = append(ports, 0) // sockets that are not connected
		}
		slices.Sort(ports)
		err := d.list(ctx, protocol, slices.Compact(ports), l.sockets.FD(), func(s *diagSocket) {
			if s.stores || protocol == unix.IPPROTO_UDP {
				all = append(all, s)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list sockets on the kernel path: %w", err)
		}
	}
	return all, nil
}

// readStoredUDPLocked adds to UDP sockets what they store for the programs. Without a lister, that stays unknown.
func (p *Path) readStoredUDPLocked(all []*diagSocket) error {
	udp := func(s *diagSocket) bool { return s.protocol == unix.IPPROTO_UDP }
	if p.lister == nil || !slices.ContainsFunc(all, udp) {
		return nil
	}
	stored, err := p.lister.read()
	if err != nil {
		return fmt.Errorf("list UDP sockets on the kernel path: %w", err)
	}
	for _, s := range all {
		if udp(s) {
			s.stored, s.stores = stored[s.cookie()]
		}
	}
	return nil
}

// isSent reports whether the socket is still connected to the endpoint to which the programs sent it. A socket that its
// client has connected again elsewhere still stores the endpoint.
func (s *diagSocket) isSent() bool {
	return s.stores && programProgress(s.stored.Progress) != programProgressENDED &&
		s.peer() == addrPortOf(s.stored.Chosen, s.stored.ChosenPort)
}

// ownerLocked returns what an index of endpoints belongs to, unless it was given to another endpoint since.
func (p *Path) ownerLocked(index, generation uint32) (owner, bool) {
	o, ok := p.table.owners[index]
	return o, ok && p.table.endpoints[index].Generation == generation
}
