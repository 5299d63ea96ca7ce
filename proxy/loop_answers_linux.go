package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// answers are datagrams of endpoints on their way to the clients of one shard: collected over a turn, and sent
// together.
type answers struct {
	in    *batch
	out   sender
	names [batchSize]unix.RawSockaddrInet6 // copies: a session may end before its answers are sent
	shard *udpShard
	s     *service // that they count for
	used  int      // places of in
}

// receive takes answers for x, and returns how many: one, which costs less, or what there is, of a session that had
// some in the turn before.
func (a *answers) receive(x *loopSession, busy bool) (n int, err syscall.Errno) {
	if a.shard != x.shard || a.s != x.s || a.used == batchSize {
		a.flush()
		a.shard, a.s = x.shard, x.s
	}
	if busy {
		n, err = a.in.receiveFrom(x.fd, a.used, min(answersPerTurn, batchSize-a.used), x.joined)
	} else {
		n, err = a.in.receiveOne(x.fd, a.used)
	}
	count := 0
	for i := a.used; i < a.used+n; i++ {
		a.names[i] = x.clientName
		a.out.add(parcel{
			base: a.in.base(i), size: a.in.sizeOf(i), segment: a.in.segment(i),
			to: &a.names[i], source: x.key.local, flow: x.serial, plain: &x.unsegmented,
		})
		count += a.in.datagramCount(i)
		x.bytes[serverSide] += int64(a.in.sizeOf(i))
	}
	a.used += n
	return count, err
}

// flush sends them.
func (a *answers) flush() {
	if a.used == 0 {
		return
	}
	c := a.s.at(a.shard.loop.id)
	for a.out.more() {
		t, err := a.out.send(a.shard.fd)
		c.datagramsDown.Add(int64(t.datagrams))
		c.bytesDown.Add(int64(t.bytes))
		if err != 0 { // a datagram that cannot be sent to its client is lost, as on any hop
			c.datagramsDropped.Add(int64(a.out.skip()))
		}
	}
	a.out.clear()
	a.shard, a.s, a.used = nil, nil, 0
}
