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
	// Size is the number of datagrams that a Batch or a Sender holds.
	Size = 64

	// Headroom is how many bytes Prepend can put in front of a datagram.
	Headroom = 4096

	// stride is the distance in bytes between two datagrams' buffers. stride exceeds Headroom and the largest datagram.
	// It is not a multiple of a page, so that the buffers' beginnings do not compete for the same cache lines.
	stride = Headroom + 64<<10 + 3*64

	// largest is the largest UDP payload in bytes, joined or not: the length field of IP has 16 bits.
	largest = 65535

	// maxJoined is the largest message in bytes, with some space left for headers. maxSegments is UDP_MAX_SEGMENTS of
	// Linux.
	maxJoined   = 65000
	maxSegments = 64

	// controlRoom is the size in bytes of a datagram's buffer for control messages. They carry the datagram's local
	// address (twice on a dual-stack socket), segment size and hops.
	controlRoom = 128
)

// A control is a buffer for control messages, aligned as the kernel requires.
type control [controlRoom / 8]uint64

func (c *control) buffer() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c)), controlRoom) }

// A Batch holds received datagrams at places 0 to Size-1. A Batch reserves 4 MiB of address space; the system allocates
// only the pages that are used. A Batch belongs to one goroutine.
type Batch struct {
	denied   *sys.Denials
	headers  [Size]sys.Mmsghdr
	iovecs   [Size]unix.Iovec
	Names    [Size]unix.RawSockaddrInet6 // addresses of the datagrams' senders; only Receive sets them
	controls [Size]control
	segments [Size]int        // size in bytes of the datagrams joined in the place; 0 for a single datagram
	locals   [Size]sys.Source // local address that each datagram was sent to
	ToAll    [Size]bool       // whether each datagram was broadcast or multicast
	Hops     [Size]uint8      // hops that each datagram had left; 0 if unknown
	Next     [Size]int16      // free for the caller to link places into lists; negative at the end of a list
	moved    bool             // whether Strip or Prepend has moved the beginning of a datagram
	buf      []byte
}

// New returns an empty batch. New does not use the calls that d denies.
func New(d *sys.Denials) *Batch {
	b := &Batch{denied: d}
	const size = Size * stride
	var err error
	// A mapping does not disturb the pace of Go's garbage collector. Most datagrams are small, so huge pages would
	// waste memory.
	if b.buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		b.buf = make([]byte, size)
	} else {
		// Madvise fails on a kernel without huge pages, which does not matter.
		_ = unix.Madvise(b.buf, unix.MADV_NOHUGEPAGE)
	}
	b.resetBases()
	for i := range b.headers {
		b.iovecs[i].SetLen(largest)
		b.headers[i].Iov = &b.iovecs[i]
		b.headers[i].SetIovlen(1)
	}
	return b
}

// resetBases makes all datagrams begin where the kernel stores them.
func (b *Batch) resetBases() {
	for i := range b.iovecs {
		b.iovecs[i].Base = &b.buf[i*stride+Headroom]
	}
	b.moved = false
}

// Free returns the memory to the system. The batch must not be used afterwards.
func (b *Batch) Free() {
	_ = unix.Munmap(b.buf) // Munmap fails for a buffer from Go's heap, which is garbage collected
	b.buf = nil
}

// Receive receives up to n datagrams, with their senders and control messages, into the places that begin at from.
// Receive does not wait; EAGAIN means that no datagram has arrived.
func (b *Batch) Receive(fd int32, from, n int) (int, syscall.Errno) {
	if b.moved {
		b.resetBases()
	}
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

// ReceiveConnected does the same as Receive for a connected socket. ReceiveConnected does not store senders, and it
// reads control messages only if joined says that the kernel joins datagrams of this socket.
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

// ReceiveOne receives one datagram of a connected socket whose datagrams the kernel does not join. ReceiveOne costs
// less than ReceiveConnected.
func (b *Batch) ReceiveOne(fd int32, i int) (int, syscall.Errno) {
	n, err := sys.RecvDatagram(fd, b.buf[i*stride+Headroom:][:largest])
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

// Base returns the address of the first byte of datagram i.
func (b *Batch) Base(i int) *byte { return b.iovecs[i].Base }

// Strip removes the first n bytes of datagram i. Call Strip only for datagrams that Receive has received, with an n of
// at most Len.
func (b *Batch) Strip(i, n int) {
	b.move(i, n)
}

// Prepend puts header in front of datagram i. Call Prepend only for datagrams that Receive has received. All headers of
// a datagram may have Headroom bytes and what Strip has removed.
func (b *Batch) Prepend(i int, header []byte) {
	b.move(i, -len(header))
	copy(b.Payload(i), header)
}

func (b *Batch) move(i, n int) {
	b.iovecs[i].Base = (*byte)(unsafe.Add(unsafe.Pointer(b.iovecs[i].Base), n))
	b.headers[i].Len = uint32(int(b.headers[i].Len) - n)
	b.moved = true
}

// Len returns the size of datagram i in bytes.
func (b *Batch) Len(i int) int { return int(b.headers[i].Len) }

// Payload returns the bytes of datagram i. The bytes are valid until the batch receives again.
func (b *Batch) Payload(i int) []byte { return unsafe.Slice(b.Base(i), b.Len(i)) }

// Segment returns the size of the datagrams that the kernel has joined in place i; the last one may be smaller. Segment
// returns 0 if place i holds a single datagram.
func (b *Batch) Segment(i int) int { return b.segments[i] }

// Count returns how many datagrams the kernel has joined in place i, 1 for a single datagram.
func (b *Batch) Count(i int) int { return datagramsIn(b.Len(i), b.segments[i]) }

// FewestHops returns the smallest number of hops left of datagram i and its successors in the list. FewestHops returns
// 0 if none is known.
func (b *Batch) FewestHops(i int16) (fewest uint8) {
	for ; i >= 0; i = b.Next[i] {
		if hops := b.Hops[i]; fewest == 0 || hops > 0 && hops < fewest {
			fewest = hops
		}
	}
	return fewest
}

// CountFrom returns the number of datagrams in place i and its successors in the list.
func (b *Batch) CountFrom(i int16) int {
	n := 0
	for ; i >= 0; i = b.Next[i] {
		n += b.Count(int(i))
	}
	return n
}

// Key returns the session key of datagram i. If local is false, the key ignores the datagram's local address.
func (b *Batch) Key(i int, local bool) Key {
	k := Key{Client: ClientIDOf(&b.Names[i])}
	if local {
		k.Local = b.locals[i]
	}
	return k
}

// Each yields the datagrams that were joined in place i. The bytes belong to the batch.
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

// datagramsIn returns how many datagrams of the given segment size are joined in size bytes.
func datagramsIn(size, segment int) int {
	if segment == 0 {
		return 1
	}
	return (size + segment - 1) / segment
}

// A ClientID is a client's address as a map key: plain bytes without padding or pointers.
type ClientID struct {
	ip    [16]byte
	scope uint32
	port  uint16
	v6    uint16 // 1 for an IPv6 client, 0 for IPv4
}

// A Key identifies a session by the sender's address and, on a wildcard listener, by the local address it used. If the
// sender is a proxy, what it says of the client is a part of the key.
type Key struct {
	Client     ClientID
	Local      sys.Source
	Introduced Introduced // Batch.Key leaves it zero
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
