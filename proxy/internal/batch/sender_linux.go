package batch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A Parcel is a datagram to be sent, or several that the kernel has joined.
type Parcel struct {
	Base    *byte
	Size    int // bytes
	Segment int // bytes of each of joined datagrams; 0 if it is a single one

	// Where it goes, over a socket that is not connected; nil otherwise.
	To     *unix.RawSockaddrInet6
	Source sys.Source // where it leaves from; zero for the kernel's choice

	Hops uint8 // 0 for what the socket gives it
	Six  bool  // the socket is one of IPv6; of interest to hops

	Flow  uint64 // only parcels of one flow may be joined
	Plain *bool  // of the flow: the kernel does not cut, as Send found out; nil: nothing is joined or cut
	Place int16  // the caller's: its place in the Batch that it is from
}

// A Sender sends parcels over one socket, as few messages as may be: consecutive ones of a flow that have one size,
// but for the last, which may be smaller, are handed to the kernel as one, to be cut on the way out. Where the
// kernel cannot do that (a device without checksums, datagrams larger than the path takes), they go one by one.
type Sender struct {
	Denied  *sys.Denials // not nil
	parcels [Size]Parcel
	n       int // parcels
	at      int // those before are done with

	headers  [Size]sys.Mmsghdr
	iovecs   [Size]unix.Iovec
	controls [Size]control
	messages [Size]message
}

// A message is what one header of sendmmsg(2) stands for.
type message struct {
	parcels   int // 0: the first segment of a parcel that is sent segment by segment
	datagrams int
	bytes     int
}

// Traffic is what was sent.
type Traffic struct{ Datagrams, Bytes int }

// Clear forgets all parcels.
func (w *Sender) Clear() {
	clear(w.parcels[:w.n]) // what they point to may go
	w.n, w.at = 0, 0
}

// Add takes a parcel. There is room for Size.
func (w *Sender) Add(p Parcel) {
	w.parcels[w.n] = p
	w.n++
}

// More reports whether there are parcels that were neither sent nor skipped.
func (w *Sender) More() bool { return w.at < w.n }

// Front returns the first parcel that was neither sent nor skipped.
func (w *Sender) Front() *Parcel { return &w.parcels[w.at] }

// Send sends parcels, not necessarily all, and returns what it has sent. Call it only if More returns true. After an
// error, Front returns the parcel that the error is about.
func (w *Sender) Send(fd int32) (Traffic, syscall.Errno) {
	var t Traffic
	if w.parcels[w.at].Hops > 0 {
		if err := sys.FaultHops(); err != 0 {
			return t, err
		}
	}
	m := w.build()
	sent, err := w.Denied.Send(fd, w.headers[:m])
	for _, msg := range w.messages[:sent] {
		w.advance(msg)
		t.Datagrams += msg.datagrams
		t.Bytes += msg.bytes
	}
	if err != 0 && cannotCut(err) && w.messages[0].datagrams > 1 {
		*w.parcels[w.at].Plain = true
		return t, 0
	}
	return t, err
}

// DropHops leaves it to the socket how many hops the parcels that are left have.
func (w *Sender) DropHops() {
	for i := w.at; i < w.n; i++ {
		w.parcels[i].Hops = 0
	}
}

// cuts reports whether the kernel cuts what is joined of a parcel's flow, as far as that is known.
func (w *Sender) cuts(p *Parcel) bool {
	return p.Plain != nil && !*p.Plain && !w.Denied.Has(sys.CallCut)
}

// cannotCut reports whether err may mean that the kernel does not cut this message: udp_send_skb of net/ipv4/udp.c.
func cannotCut(err syscall.Errno) bool {
	return err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO || err == unix.EOPNOTSUPP ||
		err == unix.ENOPROTOOPT
}

// advance is told of each message that is done with.
func (w *Sender) advance(m message) {
	if m.parcels > 0 {
		w.at += m.parcels
		return
	}
	p := &w.parcels[w.at]
	if m.bytes == p.Size {
		w.at++
		return
	}
	p.Base = (*byte)(unsafe.Add(unsafe.Pointer(p.Base), m.bytes))
	p.Size -= m.bytes
}

// Skip gives up the message that Send had an error for, and returns how many datagrams that is.
func (w *Sender) Skip() int {
	w.advance(w.messages[0])
	return w.messages[0].datagrams
}

// build makes messages of the parcels that are left, and returns how many.
func (w *Sender) build() int {
	m, iov := 0, 0
	for i := w.at; i < w.n && m < Size; {
		p := &w.parcels[i]
		if p.Segment > 0 && !w.cuts(p) {
			count, whole := w.buildSegments(p, m, iov)
			m, iov = m+count, iov+count
			if !whole {
				break
			}
			i++
			continue
		}
		k, size := w.joinable(i)
		if iov+k > Size {
			break
		}
		for j := range k {
			q := &w.parcels[i+j]
			w.iovecs[iov+j].Base = q.Base
			w.iovecs[iov+j].SetLen(q.Size)
		}
		segment := p.Segment
		if k > 1 {
			segment = p.Size
		}
		w.messages[m] = message{parcels: k, datagrams: max(k, datagramsIn(size, segment)), bytes: size}
		w.header(m, p, iov, k, segment)
		m, iov, i = m+1, iov+k, i+k
	}
	return m
}

// buildSegments makes messages of one parcel's segments from message m on, as far as there is room, and tells how
// many, and whether that was all.
func (w *Sender) buildSegments(p *Parcel, m, iov int) (count int, whole bool) {
	for offset := 0; offset < p.Size; offset += p.Segment {
		if m+count == Size || iov+count == Size {
			return count, false
		}
		size := min(p.Segment, p.Size-offset)
		w.iovecs[iov+count].Base = (*byte)(unsafe.Add(unsafe.Pointer(p.Base), offset))
		w.iovecs[iov+count].SetLen(size)
		w.messages[m+count] = message{datagrams: 1, bytes: size}
		w.header(m+count, p, iov+count, 1, 0)
		count++
	}
	return count, true
}

// joinable is how many parcels from i on can go as one, and how many bytes that is.
func (w *Sender) joinable(i int) (k, size int) {
	p := &w.parcels[i]
	k, size = 1, p.Size
	if p.Segment > 0 || p.Size == 0 || !w.cuts(p) {
		return k, size
	}
	for i+k < w.n && k < maxSegments {
		q := &w.parcels[i+k]
		if q.Flow != p.Flow || q.Segment > 0 || q.Size == 0 || q.Size > p.Size || size+q.Size > maxJoined {
			break
		}
		k, size = k+1, size+q.Size
		if q.Size < p.Size {
			break
		}
	}
	return k, size
}

// header fills in the header of message m, which is cut into segments if that is not 0.
func (w *Sender) header(m int, p *Parcel, iov, k, segment int) {
	h := &w.headers[m]
	h.Iov = &w.iovecs[iov]
	h.SetIovlen(k)
	h.Name, h.Namelen = nil, 0
	if p.To != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(p.To)), sys.AddrSize(p.To)
	}
	oob := w.controls[m].buffer()
	n := 0
	if p.Source != (sys.Source{}) {
		n += sys.PutSource(oob, p.To.Family, p.Source)
	}
	if p.Hops > 0 {
		n += sys.PutHops(oob[n:], p.Six, p.Hops)
	}
	if segment > 0 {
		n += sys.PutSegment(oob[n:], segment)
	}
	h.Control = nil
	if h.SetControllen(n); n > 0 {
		h.Control = &oob[0]
	}
}
