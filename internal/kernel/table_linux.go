//go:build amd64 || arm64

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// maxLeft limits the endpoints of a service that have left but still have counters. Those with open connections may
// exceed it.
const maxLeft = 1024

// A table is what the programs read: services, their listeners and their endpoints. It is not safe for concurrent use.
type table struct {
	listeners       *ebpf.Map
	tcp, udp        ports
	exact, wildcard ports // of TCP and UDP

	// The memory of three maps. The programs read and write it at the same time.
	services  []programService
	slots     []uint64
	endpoints []programEndpoint

	byName map[string]*service

	freeServices  []uint32 // taken from the front: an index rests for as long as possible
	freeEndpoints []uint32
	freeSlots     extents
	owners        map[uint32]owner // by index of endpoints
}

// ports says at which ports there are listeners, so that the programs can leave all others alone at once.
type ports struct {
	inKernel *ebpf.Variable
	uses     map[uint16]int // listeners at each port
	bits     [1024]uint64   // the value of inKernel
}

// A service is a service of a table.
type service struct {
	udp       bool
	name      string
	index     uint32
	listen    map[netip.AddrPort]bool
	slots     extent // of the current set
	endpoints map[place]uint32
	left      map[place]uint32 // endpoints that have left; they keep their counters for as long as there is room
	gone      Counters         // of endpoints that have no index any more
}

// A place identifies an endpoint within its service.
type place struct {
	key  uint64
	addr netip.AddrPort
}

// An owner says to what an index of endpoints belongs.
type owner struct {
	service *service
	place   place
}

func newTable(o *programObjects) (*table, error) {
	t := &table{
		listeners: o.Listeners,
		tcp:       ports{inKernel: o.TcpPorts, uses: map[uint16]int{}},
		udp:       ports{inKernel: o.UdpPorts, uses: map[uint16]int{}},
		exact:     ports{inKernel: o.ExactPorts, uses: map[uint16]int{}},
		wildcard:  ports{inKernel: o.WildcardPorts, uses: map[uint16]int{}},
		byName:    map[string]*service{},
		owners:    map[uint32]owner{},
	}
	var err error
	if t.services, err = view[programService](o.Services); err == nil {
		if t.slots, err = view[uint64](o.Slots); err == nil {
			t.endpoints, err = view[programEndpoint](o.Endpoints)
		}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	t.freeServices = indexes(len(t.services))
	t.freeEndpoints = indexes(len(t.endpoints))
	t.freeSlots.give(extent{0, uint32(len(t.slots))})
	return t, nil
}

func indexes(n int) []uint32 {
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(i)
	}
	return all
}

// close unmaps the memory. The table must not be used any more.
func (t *table) close() {
	unview(t.services)
	unview(t.slots)
	unview(t.endpoints)
}

// set replaces the state of a service. If it returns an error, the service is as before.
func (t *table) set(s Service) error {
	if err := check(s); err != nil {
		return err
	}
	known := t.byName[s.Name]
	if known == nil {
		if len(t.freeServices) == 0 {
			return full("services")
		}
		known = &service{name: s.Name, udp: s.UDP, index: t.freeServices[0], left: map[place]uint32{}}
	}
	if err := t.setEndpoints(known, s); err != nil {
		return err
	}
	if t.byName[s.Name] == nil {
		t.byName[s.Name] = known
		t.freeServices = t.freeServices[1:]
	}
	return t.setListeners(known, s.Listen)
}

func check(s Service) error {
	for _, e := range s.Endpoints {
		if !e.Addr.IsValid() || e.Addr.Addr().Zone() != "" || e.Addr.Port() == 0 {
			return fmt.Errorf("endpoint %s of %q: the kernel path needs a port, and an IP address without a zone",
				e.Addr, s.Name)
		}
	}
	return nil
}

func full(what string) error {
	return &Error{Reason: Full, Detail: "the kernel path has no room for more " + what}
}

// setEndpoints writes the set of slots that is not in use, and then makes it the one in use.
func (t *table) setEndpoints(known *service, s Service) error {
	weights := make([]int, len(s.Endpoints))
	for i, e := range s.Endpoints {
		weights[i] = e.Weight
	}
	order := turns(weights)
	part, ok := t.freeSlots.take(uint32(len(order)))
	if !ok {
		return full("turns of endpoints")
	}
	at, err := t.indexesOf(known, s.Endpoints)
	if err != nil {
		t.freeSlots.give(part)
		return err
	}
	for i, which := range order {
		t.slots[part.first+uint32(i)] = uint64(at[which])
	}
	inKernel := &t.services[known.index]
	timeout := s.ConnectTimeout
	if s.UDP {
		timeout = s.IdleTimeout
	}
	atomic.StoreUint64(&inKernel.Timeout, uint64(max(timeout, 0)))
	t.publish(inKernel, part)
	t.freeSlots.give(known.slots)
	known.slots = part
	t.leave(known, s.Endpoints, at)
	return nil
}

// indexesOf returns the index of each endpoint. It takes indexes for those that the service does not have.
func (t *table) indexesOf(s *service, all []Endpoint) ([]uint32, error) {
	at := make([]uint32, len(all))
	var missing []int
	for i, e := range all {
		index, ok := s.endpoints[e.place()]
		if !ok {
			index, ok = s.left[e.place()]
		}
		if at[i] = index; !ok {
			missing = append(missing, i)
		}
	}
	if len(missing) > len(t.freeEndpoints) {
		t.sweep(0, all)
	}
	if len(missing) > len(t.freeEndpoints) {
		return nil, full("endpoints")
	}
	for _, i := range missing {
		at[i] = t.newEndpoint(s, all[i].place())
	}
	return at, nil
}

func (e Endpoint) place() place { return place{e.Key, e.Addr} }

// leave makes all the endpoints of the service. The others have left.
func (t *table) leave(s *service, all []Endpoint, at []uint32) {
	before := s.endpoints
	s.endpoints = make(map[place]uint32, len(all))
	for i, e := range all {
		s.endpoints[e.place()] = at[i]
		atomic.StoreUint32(&t.endpoints[at[i]].Cut, 0)
		atomic.StoreUint32(&t.endpoints[at[i]].Left, 0)
		delete(s.left, e.place())
	}
	for p, index := range before {
		if _, ok := s.endpoints[p]; !ok {
			s.left[p] = index
			atomic.StoreUint32(&t.endpoints[index].Left, 1)
		}
	}
	s.sweep(t, maxLeft, nil)
}

// publish makes part the slots of the service. A program that is reading the previous ones sees that the generation has
// changed, and begins again. So they may be used for something else at once.
func (t *table) publish(s *programService, part extent) {
	set := &s.Sets[(s.Generation+1)&1]
	atomic.StoreUint32(&set.First, part.first)
	atomic.StoreUint32(&set.Count, part.count)
	atomic.AddUint32(&s.Generation, 1)
}

// newEndpoint writes a new endpoint. There must be a free index.
func (t *table) newEndpoint(s *service, p place) uint32 {
	index := t.freeEndpoints[0]
	t.freeEndpoints = t.freeEndpoints[1:]
	e := &t.endpoints[index]
	atomic.AddUint32(&e.Generation, 1)
	e.Address, e.Port = addressOf(p.addr.Addr()), portOf(p.addr.Port())
	e.Failing, e.Cut, e.Left = 0, 0, 0
	e.Counters = programCounters{}
	t.owners[index] = owner{s, p}
	return index
}

// sweep frees the indexes of endpoints that have left their services.
func (t *table) sweep(keep int, except []Endpoint) {
	places := make(map[place]bool, len(except))
	for _, e := range except {
		places[e.place()] = true
	}
	for _, s := range t.byName {
		s.sweep(t, keep, places)
	}
}

// sweep frees the indexes of endpoints that have left the service and have no open connections, until only keep are
// left.
func (s *service) sweep(t *table, keep int, except map[place]bool) {
	for p, index := range s.left {
		if len(s.left) <= keep {
			return
		}
		c := t.counters(index)
		if c.Open > 0 || except[p] {
			continue
		}
		s.gone.Add(c)
		delete(s.left, p)
		t.free(index)
	}
}

func (t *table) free(index uint32) {
	delete(t.owners, index)
	t.freeEndpoints = append(t.freeEndpoints, index)
}

// counters reads the counters of an endpoint.
func (t *table) counters(index uint32) Counters {
	c := &t.endpoints[index].Counters
	return Counters{
		Picks:       atomic.LoadUint64(&c.Picks),
		Open:        atomic.LoadUint64(&c.Open),
		Connections: atomic.LoadUint64(&c.Connections),
		Refused:     atomic.LoadUint64(&c.Refused),
		Unreachable: atomic.LoadUint64(&c.Unreachable),
		TimedOut:    atomic.LoadUint64(&c.TimedOut),
		Abandoned:   atomic.LoadUint64(&c.Abandoned),
		Sent:        atomic.LoadUint64(&c.Sent),
		Received:    atomic.LoadUint64(&c.Received),
	}
}

// read returns the counters of a service and of its endpoints.
func (t *table) read(name string) (Counters, []EndpointCounters) {
	s := t.byName[name]
	if s == nil {
		return Counters{}, nil
	}
	sum, all := s.gone, make([]EndpointCounters, 0, len(s.endpoints)+len(s.left))
	add := func(index uint32, left bool) {
		at := t.owners[index].place
		c := EndpointCounters{Key: at.key, Addr: at.addr, Left: left, Counters: t.counters(index)}
		sum.Add(c.Counters)
		all = append(all, c)
	}
	for _, index := range s.endpoints {
		add(index, false)
	}
	for _, index := range s.left {
		add(index, true)
	}
	return sum, all
}

// setListeners makes the service listen at these addresses only.
func (t *table) setListeners(s *service, listen []netip.AddrPort) error {
	next := make(map[netip.AddrPort]bool, len(listen))
	for _, l := range listen {
		next[netip.AddrPortFrom(l.Addr().Unmap(), l.Port())] = true
	}
	for l := range s.listen {
		if !next[l] {
			t.removeListener(s, l)
		}
	}
	previous := s.listen
	s.listen = make(map[netip.AddrPort]bool, len(next))
	for l := range next {
		if !previous[l] {
			if err := t.addListener(s, l); err != nil {
				return err
			}
		}
		s.listen[l] = true
	}
	return nil
}

func (t *table) addListener(s *service, l netip.AddrPort) error {
	if err := t.listeners.Put(s.keyOf(l), s.index); errors.Is(err, unix.E2BIG) {
		return full("listeners")
	} else if err != nil {
		return fmt.Errorf("add the listener %s to the kernel path: %w", l, err)
	}
	return t.countListener(s, l, 1)
}

func (t *table) removeListener(s *service, l netip.AddrPort) {
	_ = t.listeners.Delete(s.keyOf(l)) // it may be gone already
	_ = t.countListener(s, l, -1)
}

// countListener adds n to the listeners at the port of l.
func (t *table) countListener(s *service, l netip.AddrPort, n int) error {
	protocol, kind := &t.tcp, &t.exact
	if s.udp {
		protocol = &t.udp
	}
	if l.Addr().IsUnspecified() {
		kind = &t.wildcard
	}
	return errors.Join(kind.add(l.Port(), n), protocol.add(l.Port(), n))
}

// add adds n to the listeners at a port.
func (p *ports) add(port uint16, n int) error {
	p.uses[port] += n
	inKernel := portOf(port)
	word, bit := inKernel/64, uint64(1)<<(inKernel%64)
	if p.uses[port] > 0 {
		p.bits[word] |= bit
	} else {
		p.bits[word] &^= bit
		delete(p.uses, port)
	}
	return p.inKernel.Set(p.bits)
}

// remove removes a service. Its connections go on, but nothing counts them any more.
func (t *table) remove(name string) {
	s := t.byName[name]
	if s == nil {
		return
	}
	delete(t.byName, name)
	for l := range s.listen {
		t.removeListener(s, l)
	}
	t.publish(&t.services[s.index], extent{})
	t.freeSlots.give(s.slots)
	t.freeServices = append(t.freeServices, s.index)
	for _, index := range s.endpoints {
		atomic.StoreUint32(&t.endpoints[index].Left, 1)
		t.free(index)
	}
	for _, index := range s.left {
		t.free(index)
	}
}

// addressOf returns an address in the form in which the programs compare it.
func addressOf(a netip.Addr) programAddress {
	b := a.As16()
	var p programAddress
	for i := range p.Words {
		p.Words[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return p
}

// portOf returns a port as the number that its two bytes in network byte order are on this processor.
func portOf(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func (s *service) keyOf(l netip.AddrPort) programListener {
	key := programListener{Address: addressOf(l.Addr()), Port: portOf(l.Port()), Protocol: unix.IPPROTO_TCP}
	if s.udp {
		key.Protocol = unix.IPPROTO_UDP
	}
	return key
}

// view returns the memory of an array.
func view[T any](m *ebpf.Map) ([]T, error) {
	var element T
	size := int(unsafe.Sizeof(element)) * int(m.MaxEntries())
	if unsafe.Sizeof(element) != uintptr(m.ValueSize()) || m.ValueSize()%8 != 0 {
		return nil, fmt.Errorf("elements of %v have %d bytes, not %d", m, m.ValueSize(), unsafe.Sizeof(element))
	}
	b, err := unix.Mmap(m.FD(), 0, wholePages(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of %v: %w", m, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), m.MaxEntries()), nil
}

// unview ends a view.
func unview[T any](s []T) {
	if len(s) == 0 {
		return
	}
	size := int(unsafe.Sizeof(s[0])) * len(s)
	_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), wholePages(size)))
}

// wholePages rounds a number of bytes up to whole pages of memory.
func wholePages(size int) int {
	page := unix.Getpagesize()
	return (size + page - 1) / page * page
}
