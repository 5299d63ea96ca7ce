package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// hopsOf returns the hops that the datagrams from place i on must carry, or 0 if the socket already sets the right
// number. hopsOf returns false if a datagram has no hops left.
func (x *loopSession) hopsOf(in *batch.Batch, i int16) (hops uint8, left bool) {
	if x.holding != nil {
		if hops = x.hops; hops == 0 {
			return 0, true
		}
	} else { // other sessions use the same socket
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

// settle makes the session's socket set the given hops on all further datagrams. 0 changes nothing.
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

// sendWithoutHops sends denied datagrams again, without the control messages that set their hops. These messages may be
// why the system denied the datagrams. The socket sets the hops instead.
func (x *loopSession) sendWithoutHops(hops uint8, denial syscall.Errno) (batch.Traffic, syscall.Errno) {
	l := x.shard.loop
	l.udp.up.DropHops()
	x.settle(hops)
	t, err := l.udp.up.Send(x.fd)
	// If the second attempt fails too, a route or a firewall may be the cause, and the next datagram may pass.
	if t.Datagrams > 0 && denial != unix.EPERM && !l.denied.Has(sys.CallSendmsg) {
		l.denied.Note(sys.CallHopsMessage, denial)
	}
	return t, err
}
