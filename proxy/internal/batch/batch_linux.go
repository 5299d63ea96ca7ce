package batch

import (
	"encoding/binary"
	"iter"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

const (
	// Size is how many datagrams a Batch or a Sender holds.
	Size = 64

	// stride is how far their buffers are apart: room for the largest, and not a multiple of a page, so that
	// the beginnings of all do not compete for the same lines of the cache.
	stride = 64<<10 + 3*64

	// largest holds the largest payload of UDP, with or without joined datagrams: the length field of IP has 16 bits.
	largest = 65535

	// maxJoined bounds what is sent as one: what a UDP datagram may hold with some room for headers, and
	// UDP_MAX_SEGMENTS of Linux.
	maxJoined   = 65000
	maxSegments = 64

	// controlRoom has room for the control messages of a datagram: the address of this host that it came to or leaves
	// from, twice on a dual-stack socket, the size of its segments, and its hops.
	controlRoom = 128
)

// A control is a buffer for control messages, aligned as they must be.
type control [controlRoom / 8]uint64

func (c *control) buffer() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c)), controlRoom) }

// A Batch is datagrams that were received, each at a place from 0 to Size-1. It takes 4 MiB of address space, of which
// the system gives what is used. It belongs to one goroutine.
type Batch struct {
	denied   *sys.Denials
	headers  [Size]sys.Mmsghdr
	iovecs   [Size]unix.Iovec
	Names    [Size]unix.RawSockaddrInet6 // the senders, of what Receive took
	controls [Size]control
	segments [Size]int        // size of the datagrams that the kernel has joined; 0 if it is a single one
	locals   [Size]sys.Source // where it came to
	ToAll    [Size]bool       // it was broadcast or multicast
	Hops     [Size]uint8      // hops that it had left; 0 if that is not known; joined datagrams had the same
	Next     [Size]int16      // the caller's: links places to lists; negative ends one
	buf      []byte
}

// New returns a batch that receives in the ways that are not denied.
func New(d *sys.Denials) *Batch {
	b := &Batch{denied: d}
	const size = Size * stride
	var err error
	// Not from Go's heap, whose pace this would upset, and page by page: most datagrams are small.
	if b.buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		b.buf = make([]byte, size)
	} else {
		_ = unix.Madvise(b.buf, unix.MADV_NOHUGEPAGE) // a kernel without huge pages does not know it
	}
	for i := range b.headers {
		b.iovecs[i].Base = b.Base(i)
		b.iovecs[i].SetLen(largest)
		b.headers[i].Iov = &b.iovecs[i]
		b.headers[i].SetIovlen(1)
	}
	return b
}

// Free gives the memory back. The batch is of no use afterwards.
func (b *Batch) Free() {
	_ = unix.Munmap(b.buf) // what came from Go's heap was not mapped, and goes with b
	b.buf = nil
}

// Receive takes up to n datagrams from a socket, to the places from the given one on, with their senders and control
// messages. It does not wait: EAGAIN means that there are none.
func (b *Batch) Receive(fd int32, from, n int) (int, syscall.Errno) {
	for i := from; i < from+n; i++ {
		h := &b.headers[i]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.Names[i])), unix.SizeofSockaddrInet6
		h.Control = (*byte)(unsafe.Pointer(&b.controls[i]))
		h.SetControllen(controlRoom)
	}
	n, err := b.denied.Receive(fd, b.headers[from:from+n])
	for i := from; i < from+n; i++ {
		b.readControl(i)
	}
	return n, err
}

// ReceiveConnected is Receive for a connected socket. The sender is known, and control messages are read only if the
// kernel joins the socket's datagrams.
func (b *Batch) ReceiveConnected(fd int32, from, n int, joined bool) (int, syscall.Errno) {
	for i := from; i < from+n; i++ {
		h := &b.headers[i]
		h.Name, h.Namelen = nil, 0
		h.Control = nil
		h.SetControllen(0)
		b.segments[i] = 0
		if joined {
			h.Control = (*byte)(unsafe.Pointer(&b.controls[i]))
			h.SetControllen(controlRoom)
		}
	}
	n, err := b.denied.Receive(fd, b.headers[from:from+n])
	if joined {
		for i := from; i < from+n; i++ {
			b.readControl(i)
		}
	}
	return n, err
}

// ReceiveOne is ReceiveConnected for one datagram of a socket whose datagrams the kernel does not join. It costs less.
func (b *Batch) ReceiveOne(fd int32, i int) (int, syscall.Errno) {
	n, err := sys.RecvDatagram(fd, b.buf[i*stride:][:largest])
	if err != 0 {
		return 0, err
	}
	b.headers[i].Len, b.segments[i] = uint32(n), 0
	return 1, 0
}

func (b *Batch) readControl(i int) {
	b.segments[i], b.locals[i], b.Hops[i], b.ToAll[i] = 0, sys.Source{}, 0, false
	size := int(b.headers[i].Controllen)
	if size == 0 {
		return
	}
	for oob := b.controls[i].buffer()[:min(size, controlRoom)]; len(oob) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		end := int(h.Len)
		if end < unix.SizeofCmsghdr || end > len(oob) {
			return
		}
		data := oob[unix.CmsgLen(0):end]
		hops, isHops := sys.HopsIn(h.Level, h.Type, data)
		switch {
		case isHops:
			b.Hops[i] = hops
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if n := int(binary.NativeEndian.Uint32(data)); n > 0 && n < b.Len(i) {
				b.segments[i] = n
			}
		default:
			if a := sys.LocalIn(h.Level, h.Type, data); a.IsValid() {
				b.locals[i] = a.As16()
			}
			b.ToAll[i] = b.ToAll[i] || sys.IsToAllIn(h.Level, h.Type, data)
		}
		oob = oob[min(unix.CmsgSpace(end-unix.CmsgLen(0)), len(oob)):]
	}
}

// Base returns the place of the bytes of datagram i.
func (b *Batch) Base(i int) *byte { return &b.buf[i*stride] }

// Len returns how many bytes datagram i has.
func (b *Batch) Len(i int) int { return int(b.headers[i].Len) }

// Payload returns the bytes of datagram i. They are the batch's, until it receives again.
func (b *Batch) Payload(i int) []byte { return b.buf[i*stride:][:b.Len(i)] }

// Segment returns the size of the datagrams that the kernel has joined into i, the last of which may be smaller. It is
// 0 if i is a single one.
func (b *Batch) Segment(i int) int { return b.segments[i] }

// Count returns how many datagrams the kernel has joined into i, 1 if it is a single one.
func (b *Batch) Count(i int) int { return datagramsIn(b.Len(i), b.segments[i]) }

// FewestHops returns the hops of the datagram that had the fewest left, of i and those behind it in its list. It is 0
// if none is known.
func (b *Batch) FewestHops(i int16) (fewest uint8) {
	for ; i >= 0; i = b.Next[i] {
		if hops := b.Hops[i]; fewest == 0 || hops > 0 && hops < fewest {
			fewest = hops
		}
	}
	return fewest
}

// CountFrom returns how many datagrams are in i and the places behind it in its list.
func (b *Batch) CountFrom(i int16) int {
	n := 0
	for ; i >= 0; i = b.Next[i] {
		n += b.Count(int(i))
	}
	return n
}

// Key returns the key of the session of datagram i. Without local the address that it came to does not matter.
func (b *Batch) Key(i int, local bool) Key {
	k := Key{Client: ClientIDOf(&b.Names[i])}
	if local {
		k.Local = b.locals[i]
	}
	return k
}

// Each yields the datagrams that were joined into i. Their bytes are those of the batch.
func (b *Batch) Each(i int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest, n := b.Payload(i), b.Segment(i)
		for n > 0 && len(rest) > n {
			if !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
		yield(rest)
	}
}

// datagramsIn returns how many datagrams are joined in size bytes.
func datagramsIn(size, segment int) int {
	if segment == 0 {
		return 1
	}
	return (size + segment - 1) / segment
}

// A ClientID is a client's address, as a map likes it: plain bytes without padding or pointers.
type ClientID struct {
	ip    [16]byte
	scope uint32
	port  uint16
	v6    uint16 // 1 if it is one of IPv6
}

// A Key tells sessions apart: by the client and, on a wildcard listener, by the address that it used.
type Key struct {
	Client ClientID
	Local  sys.Source
}

// ClientIDOf returns the ClientID of a socket address.
func ClientIDOf(sa *unix.RawSockaddrInet6) ClientID {
	if sa.Family == unix.AF_INET {
		var id ClientID
		id.port = sa.Port
		copy(id.ip[:], (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr[:])
		return id
	}
	return ClientID{ip: sa.Addr, scope: sa.Scope_id, port: sa.Port, v6: 1}
}
