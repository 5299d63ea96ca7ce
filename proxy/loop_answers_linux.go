package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/batch"
)

// answers holds datagrams from endpoints to the clients of one shard. A loop collects them during a turn and sends them
// together.
type answers struct {
	in    *batch.Batch
	out   batch.Sender
	names [batch.Size]unix.RawSockaddrInet6 // copied, because a session may end before its answers are sent
	shard *udpShard
	s     *service // service whose counters count the answers
	used  int      // number of used places in in
}

// receive reads answers for x and returns their number. If busy, it reads all that have arrived, up to a limit.
// Otherwise it reads one, which costs less.
func (a *answers) receive(x *loopSession, busy bool) (n int, err syscall.Errno) {
	if a.shard != x.shard || a.s != x.s || a.used == batch.Size {
		a.flush()
		a.shard, a.s = x.shard, x.s
	}
	if busy {
		n, err = a.in.ReceiveConnected(x.fd, a.used, min(answersPerTurn, batch.Size-a.used), x.joined)
	} else {
		n, err = a.in.ReceiveOne(x.fd, a.used)
	}
	count := 0
	for i := a.used; i < a.used+n; i++ {
		a.names[i] = x.clientName
		a.out.Add(batch.Parcel{
			Base: a.in.Base(i), Size: a.in.Len(i), Segment: a.in.Segment(i),
			To: &a.names[i], Source: x.key.Local, Flow: x.serial, Plain: &x.unsegmented,
		})
		count += a.in.Count(i)
		x.bytes[serverSide] += int64(a.in.Len(i))
	}
	a.used += n
	return count, err
}

// flush sends the collected answers.
func (a *answers) flush() {
	if a.used == 0 {
		return
	}
	c := a.s.at(a.shard.loop.id)
	for a.out.More() {
		t, err := a.out.Send(a.shard.fd)
		c.datagramsDown.Add(int64(t.Datagrams))
		c.bytesDown.Add(int64(t.Bytes))
		if err != 0 { // a datagram that cannot be sent to its client is lost, as on any hop
			c.datagramsDropped.Add(int64(a.out.Skip()))
		}
	}
	a.out.Clear()
	a.shard, a.s, a.used = nil, nil, 0
}
