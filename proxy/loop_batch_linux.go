package proxy

import (
	"encoding/binary"
	"iter"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// UDP moves in batches: recvmmsg(2) takes what has come, sendmmsg(2) sends what is to go. Beyond that, the kernel
// can join datagrams of one flow and equal size into one for the way in (UDP_GRO), and take one and cut it into
// datagrams on the way out (UDP_SEGMENT), each of which then costs a fraction of one sent by itself: udp(7), and
// "Optimizing UDP for content delivery: GSO, pacing and zerocopy" (de Bruijn and Dumazet, 2018).

const (
	// batchSize is how many datagrams a loop takes at a time.
	batchSize = 64

	// batchStride is how far their buffers are apart: room for the largest, and not a multiple of a page, so that
	// the beginnings of all do not compete for the same lines of the cache.
	batchStride = 64<<10 + 3*64

	// maxJoined bounds what is sent as one: what a UDP datagram may hold with some room for headers, and
	// UDP_MAX_SEGMENTS of Linux.
	maxJoined   = 65000
	maxSegments = 64

	// controlRoom has room for the control messages of a datagram: the address of this host that it came to or leaves
	// from, the size of its segments, and its hops.
	controlRoom = 96
)

// A control is a buffer for control messages, aligned as they must be.
type control [controlRoom / 8]uint64

func (c *control) buffer() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(c)), controlRoom) }

// A batch is datagrams that were received. It is made once per loop.
type batch struct {
	denied   *sys.Denials
	headers  [batchSize]sys.Mmsghdr
	iovecs   [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6
	controls [batchSize]control
	segments [batchSize]int        // size of the datagrams that the kernel has joined; 0 if it is a single one
	locals   [batchSize]sys.Source // where it came to
	hops     [batchSize]uint8      // that it had left; 0 if that is not known; joined datagrams had the same
	next     [batchSize]int16      // the next of the same session; negative if it is the last
	buf      []byte
}

func newBatch(d *sys.Denials) *batch {
	b := &batch{denied: d}
	const size = batchSize * batchStride
	var err error
	// Not from Go's heap, whose pace this would upset, and page by page: most datagrams are small.
	if b.buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		b.buf = make([]byte, size)
	} else {
		_ = unix.Madvise(b.buf, unix.MADV_NOHUGEPAGE) // a kernel without huge pages does not know it
	}
	for i := range b.headers {
		b.iovecs[i].Base = b.base(i)
		b.iovecs[i].SetLen(maxDatagram)
		b.headers[i].Iov = &b.iovecs[i]
		b.headers[i].SetIovlen(1)
	}
	return b
}

func (b *batch) free() {
	_ = unix.Munmap(b.buf) // what came from Go's heap was not mapped, and goes with b
	b.buf = nil
}

// receive takes up to n datagrams from fd, as those from place on, with their senders and control messages.
func (b *batch) receive(fd int32, from, n int) (int, syscall.Errno) {
	for i := from; i < from+n; i++ {
		h := &b.headers[i]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		h.Control = (*byte)(unsafe.Pointer(&b.controls[i]))
		h.SetControllen(controlRoom)
	}
	n, err := b.denied.Receive(fd, b.headers[from:from+n])
	for i := from; i < from+n; i++ {
		b.readControl(i)
	}
	return n, err
}

// receiveFrom is receive for a connected socket: the sender is known, and control messages are read only if joined.
func (b *batch) receiveFrom(fd int32, from, n int, joined bool) (int, syscall.Errno) {
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

// receiveOne takes one datagram from a connected socket, as that at place i.
func (b *batch) receiveOne(fd int32, i int) (int, syscall.Errno) {
	n, err := sys.RecvDatagram(fd, b.buf[i*batchStride:][:maxDatagram])
	if err != 0 {
		return 0, err
	}
	b.headers[i].Len, b.segments[i] = uint32(n), 0
	return 1, 0
}

func (b *batch) readControl(i int) {
	b.segments[i], b.locals[i], b.hops[i] = 0, sys.Source{}, 0
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
			b.hops[i] = hops
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if n := int(binary.NativeEndian.Uint32(data)); n > 0 && n < b.sizeOf(i) {
				b.segments[i] = n
			}
		default:
			if a := sys.LocalIn(h.Level, h.Type, data); a.IsValid() {
				b.locals[i] = a.As16()
			}
		}
		oob = oob[min(unix.CmsgSpace(end-unix.CmsgLen(0)), len(oob)):]
	}
}

func (b *batch) base(i int) *byte        { return &b.buf[i*batchStride] }
func (b *batch) sizeOf(i int) int        { return int(b.headers[i].Len) }
func (b *batch) payload(i int) []byte    { return b.buf[i*batchStride:][:b.sizeOf(i)] }
func (b *batch) segment(i int) int       { return b.segments[i] }
func (b *batch) datagramCount(i int) int { return datagramsIn(b.sizeOf(i), b.segments[i]) }
func (b *batch) clientAt(i int) clientID { return clientIDOf(&b.names[i]) }

// hopsFrom is how many hops had the one of i and those behind it left that had the fewest; 0 if that is not known.
func (b *batch) hopsFrom(i int16) (fewest uint8) {
	for ; i >= 0; i = b.next[i] {
		if hops := b.hops[i]; fewest == 0 || hops > 0 && hops < fewest {
			fewest = hops
		}
	}
	return fewest
}

// datagramsFrom is how many there are in i and those behind it that are of the same session.
func (b *batch) datagramsFrom(i int16) int {
	n := 0
	for ; i >= 0; i = b.next[i] {
		n += b.datagramCount(int(i))
	}
	return n
}

// keyOf is the key of the session of datagram i. Without local the address that it came to does not matter.
func (b *batch) keyOf(i int, local bool) clientKey {
	k := clientKey{client: b.clientAt(i)}
	if local {
		k.local = b.locals[i]
	}
	return k
}

// each yields what was joined into i.
func (b *batch) each(i int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest, n := b.payload(i), b.segment(i)
		for n > 0 && len(rest) > n {
			if !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
		yield(rest)
	}
}

// datagramsIn is how many datagrams are joined in size bytes.
func datagramsIn(size, segment int) int {
	if segment == 0 {
		return 1
	}
	return (size + segment - 1) / segment
}

// A clientID is a client's address, as a map likes it: plain bytes without padding or pointers.
type clientID struct {
	ip    [16]byte
	scope uint32
	port  uint16
	v6    uint16 // 1 if it is one of IPv6
}

// A clientKey tells sessions apart: by the client and, on a wildcard listener, by the address that it used.
type clientKey struct {
	client clientID
	local  sys.Source
}

func clientIDOf(sa *unix.RawSockaddrInet6) clientID {
	if sa.Family == unix.AF_INET {
		var id clientID
		id.port = sa.Port
		copy(id.ip[:], (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr[:])
		return id
	}
	return clientID{ip: sa.Addr, scope: sa.Scope_id, port: sa.Port, v6: 1}
}
