package batch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A Parcel is one datagram to be sent, or several that the kernel has joined.
type Parcel struct {
	Base    *byte
	Size    int // size of the parcel in bytes
	Segment int // size of each joined datagram in bytes; 0 for a single datagram

	// The destination, for a socket that is not connected; otherwise nil.
	To     *unix.RawSockaddrInet6
	Source sys.Source // source address of the parcel; zero if the kernel may choose

	Hops uint8 // hops of the parcel; 0 for the socket's default
	Six  bool  // whether the socket is an IPv6 socket; needed to set Hops

	Flow  uint64 // only parcels with the same Flow may be joined
	Plain *bool  // shared by a flow; Send sets it if the kernel cannot cut; nil disables joining and cutting
	Place int16  // free for the caller, as the place in the Batch that holds the bytes
}

// A Sender sends parcels over one socket in as few messages as possible. A Sender joins consecutive parcels of one flow
// and one size into one message, which the kernel cuts again on the way out. The last parcel of a message may be
// smaller. If the kernel cannot cut (a device without checksums, datagrams larger than the path allows), parcels are
// sent singly.
type Sender struct {
	Denied  *sys.Denials // must not be nil
	parcels [Size]Parcel
	n       int // number of parcels added
	at      int // parcels before this index have been sent or skipped

	headers  [Size]sys.Mmsghdr
	iovecs   [Size]unix.Iovec
	controls [Size]control
	messages [Size]message
}

// A message describes what one header of sendmmsg(2) sends.
type message struct {
	parcels   int // number of parcels in the message; 0 if the message is one segment of a parcel
	datagrams int
	bytes     int
}

// Traffic is the amount of data sent.
type Traffic struct{ Datagrams, Bytes int }

// Clear removes all parcels.
func (w *Sender) Clear() {
	clear(w.parcels[:w.n]) // drops the pointers of the parcels
	w.n, w.at = 0, 0
}

// Add appends a parcel. A Sender holds at most Size parcels.
func (w *Sender) Add(p Parcel) {
	w.parcels[w.n] = p
	w.n++
}

// More reports whether there are parcels that were neither sent nor skipped.
func (w *Sender) More() bool { return w.at < w.n }

// Front returns the first parcel that was neither sent nor skipped.
func (w *Sender) Front() *Parcel { return &w.parcels[w.at] }

// Send sends parcels, not necessarily all, and returns what it has sent. Call Send only if More returns true. After an
// error, Front returns the parcel that caused it.
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

// DropHops makes the remaining parcels use the socket's hops.
func (w *Sender) DropHops() {
	for i := w.at; i < w.n; i++ {
		w.parcels[i].Hops = 0
	}
}

// cuts reports whether the kernel, as far as known, can cut messages of the parcel's flow.
func (w *Sender) cuts(p *Parcel) bool {
	return p.Plain != nil && !*p.Plain && !w.Denied.Has(sys.CallCut)
}

// cannotCut reports whether err may mean that the kernel cannot cut this message; see udp_send_skb in net/ipv4/udp.c.
func cannotCut(err syscall.Errno) bool {
	return err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO || err == unix.EOPNOTSUPP ||
		err == unix.ENOPROTOOPT
}

// advance moves past a message that was sent or skipped.
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

// Skip drops the message that made Send fail, and returns how many datagrams it held.
func (w *Sender) Skip() int {
	w.advance(w.messages[0])
	return w.messages[0].datagrams
}

// build makes messages of the remaining parcels and returns their number.
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

// buildSegments makes one message for each segment of p, starting with message m, while there is space. buildSegments
// returns the number of messages, and whether they cover the whole parcel.
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

// joinable returns how many parcels from index i on can be sent as one message, and their total size in bytes.
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

// header fills in the header of message m. If segment is not 0, the kernel cuts the message into such segments.
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
