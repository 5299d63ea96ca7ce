package proxy

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A parcel is a datagram to be sent, or several that the kernel has joined.
type parcel struct {
	base    *byte
	size    int
	segment int // of joined datagrams; 0 if it is a single one

	// Where it goes, over a socket that is not connected; to is nil otherwise.
	to     *unix.RawSockaddrInet6
	source sys.Source // where it leaves from; zero for the kernel's choice

	hops uint8 // 0 for what the socket gives it
	six  bool  // the socket is one of IPv6; of interest to hops

	flow    uint64 // only parcels of one flow may be joined
	plain   *bool  // of the flow: the kernel does not cut; nil is false
	inBatch int16  // in the batch that it is from
}

// A sender sends parcels over one socket, as few messages as may be: consecutive ones of a flow that have one size,
// but for the last, which may be smaller, are handed to the kernel as one, to be cut on the way out. Where the
// kernel cannot do that (a device without checksums, datagrams larger than the path takes), they go one by one.
type sender struct {
	denied  *sys.Denials
	parcels [batchSize]parcel
	n       int // parcels
	at      int // those before are done with

	headers  [batchSize]sys.Mmsghdr
	iovecs   [batchSize]unix.Iovec
	controls [batchSize]control
	messages [batchSize]message
}

// A message is what one header of sendmmsg(2) stands for.
type message struct {
	parcels   int // 0: the first segment of a parcel that is sent segment by segment
	datagrams int
	bytes     int
}

// traffic is what was sent.
type traffic struct{ datagrams, bytes int }

func (w *sender) clear() {
	clear(w.parcels[:w.n]) // what they point to may go
	w.n, w.at = 0, 0
}

// add takes a parcel; there is room for batchSize.
func (w *sender) add(p parcel) {
	w.parcels[w.n] = p
	w.n++
}

// more tells whether there are parcels that were neither sent nor skipped.
func (w *sender) more() bool { return w.at < w.n }

// send sends parcels, not necessarily all. After an error the parcel at the front is the one that it is about; it
// stays there.
func (w *sender) send(fd int32) (traffic, syscall.Errno) {
	var t traffic
	if w.parcels[w.at].hops > 0 {
		if err := sys.FaultHops(); err != 0 {
			return t, err
		}
	}
	m := w.build()
	sent, err := w.denied.Send(fd, w.headers[:m])
	for _, msg := range w.messages[:sent] {
		w.advance(msg)
		t.datagrams += msg.datagrams
		t.bytes += msg.bytes
	}
	if err != 0 && cannotCut(err) && w.messages[0].datagrams > 1 {
		*w.parcels[w.at].plain = true
		return t, 0
	}
	return t, err
}

// dropHops leaves it to the socket how many hops the parcels that are left have.
func (w *sender) dropHops() {
	for i := w.at; i < w.n; i++ {
		w.parcels[i].hops = 0
	}
}

// cuts reports whether the kernel cuts what is joined of a parcel's flow, as far as that is known.
func (w *sender) cuts(p *parcel) bool {
	return p.plain != nil && !*p.plain && !w.denied.Has(sys.CallCut)
}

// cannotCut tells whether err may mean that the kernel does not cut this message: udp_send_skb of net/ipv4/udp.c.
func cannotCut(err syscall.Errno) bool {
	return err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO || err == unix.EOPNOTSUPP ||
		err == unix.ENOPROTOOPT
}

// advance is told of each message that is done with.
func (w *sender) advance(m message) {
	if m.parcels > 0 {
		w.at += m.parcels
		return
	}
	p := &w.parcels[w.at]
	if m.bytes == p.size {
		w.at++
		return
	}
	p.base = (*byte)(unsafe.Add(unsafe.Pointer(p.base), m.bytes))
	p.size -= m.bytes
}

// skip gives up the message that send had an error for, and returns how many datagrams that is.
func (w *sender) skip() int {
	w.advance(w.messages[0])
	return w.messages[0].datagrams
}

// build makes messages of the parcels that are left, and returns how many.
func (w *sender) build() int {
	m, iov := 0, 0
	for i := w.at; i < w.n && m < batchSize; {
		p := &w.parcels[i]
		if p.segment > 0 && !w.cuts(p) {
			count, whole := w.buildSegments(p, m, iov)
			m, iov = m+count, iov+count
			if !whole {
				break
			}
			i++
			continue
		}
		k, size := w.joinable(i)
		if iov+k > batchSize {
			break
		}
		for j := range k {
			q := &w.parcels[i+j]
			w.iovecs[iov+j].Base = q.base
			w.iovecs[iov+j].SetLen(q.size)
		}
		segment := p.segment
		if k > 1 {
			segment = p.size
		}
		w.messages[m] = message{parcels: k, datagrams: max(k, datagramsIn(size, segment)), bytes: size}
		w.header(m, p, iov, k, segment)
		m, iov, i = m+1, iov+k, i+k
	}
	return m
}

// buildSegments makes messages of one parcel's segments from message m on, as far as there is room, and tells how
// many, and whether that was all.
func (w *sender) buildSegments(p *parcel, m, iov int) (count int, whole bool) {
	for offset := 0; offset < p.size; offset += p.segment {
		if m+count == batchSize || iov+count == batchSize {
			return count, false
		}
		size := min(p.segment, p.size-offset)
		w.iovecs[iov+count].Base = (*byte)(unsafe.Add(unsafe.Pointer(p.base), offset))
		w.iovecs[iov+count].SetLen(size)
		w.messages[m+count] = message{datagrams: 1, bytes: size}
		w.header(m+count, p, iov+count, 1, 0)
		count++
	}
	return count, true
}

// joinable is how many parcels from i on can go as one, and how many bytes that is.
func (w *sender) joinable(i int) (k, size int) {
	p := &w.parcels[i]
	k, size = 1, p.size
	if p.segment > 0 || p.size == 0 || !w.cuts(p) {
		return k, size
	}
	for i+k < w.n && k < maxSegments {
		q := &w.parcels[i+k]
		if q.flow != p.flow || q.segment > 0 || q.size == 0 || q.size > p.size || size+q.size > maxJoined {
			break
		}
		k, size = k+1, size+q.size
		if q.size < p.size {
			break
		}
	}
	return k, size
}

// header fills in the header of message m, which is cut into segments if that is not 0.
func (w *sender) header(m int, p *parcel, iov, k, segment int) {
	h := &w.headers[m]
	h.Iov = &w.iovecs[iov]
	h.SetIovlen(k)
	h.Name, h.Namelen = nil, 0
	if p.to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(p.to)), sys.AddrSize(p.to)
	}
	oob := w.controls[m].buffer()
	n := 0
	if p.source != (sys.Source{}) {
		n += sys.PutSource(oob, p.to.Family, p.source)
	}
	if p.hops > 0 {
		n += sys.PutHops(oob[n:], p.six, p.hops)
	}
	if segment > 0 {
		n += sys.PutSegment(oob[n:], segment)
	}
	h.Control = nil
	if h.SetControllen(n); n > 0 {
		h.Control = &oob[0]
	}
}
