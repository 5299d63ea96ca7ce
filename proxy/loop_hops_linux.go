package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// hopsOf returns the hops that datagrams from i on are to take along; 0 if the socket gives them those that they are to
// have. It returns false if they have none left.
func (x *loopSession) hopsOf(in *batch.Batch, i int16) (hops uint8, left bool) {
	if x.holding != nil {
		if hops = x.hops; hops == 0 {
			return 0, true
		}
	} else { // its socket is that of others too
		hops = in.FewestHops(i)
		if hops <= 1 {
			return 0, hops == 0
		}
		if hops--; hops == x.shared.hops {
			return 0, true
		}
	}
	denied := x.shard.loop.denied
	if x.holding != nil && x.sent > 0 || denied.Has(sys.CallHopsMessage) || denied.Has(sys.CallSendmsg) {
		x.settle(hops)
		return 0, true
	}
	return hops, true
}

// settle has the session's socket give all datagrams from now on so many hops; 0 changes nothing.
func (x *loopSession) settle(hops uint8) {
	x.hops = 0
	if hops == 0 {
		return
	}
	sys.SetHops(x.fd, x.six, hops)
	if x.shared != nil {
		x.shared.hops = hops
	}
}

// sendWithoutHops sends datagrams that the system has denied, perhaps because of the control messages with their hops.
// Now the socket gives them their hops.
func (x *loopSession) sendWithoutHops(hops uint8, denial syscall.Errno) (batch.Traffic, syscall.Errno) {
	l := x.shard.loop
	l.udp.up.DropHops()
	x.settle(hops)
	t, err := l.udp.up.Send(x.fd)
	// Else it was for another reason: a route, or a firewall, which may let the next datagram pass.
	if t.Datagrams > 0 && denial != unix.EPERM && !l.denied.Has(sys.CallSendmsg) {
		l.denied.Note(sys.CallHopsMessage, denial)
	}
	return t, err
}
