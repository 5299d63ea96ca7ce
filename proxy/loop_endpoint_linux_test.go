package proxy

import (
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
)

// Memory use is mostly idle pairs. One more word would make the allocator use 32 bytes more for each pair.
func TestLoopPairFitsItsSizeClass(t *testing.T) {
	if size := unsafe.Sizeof(loopPair{}); size > 288 {
		t.Errorf("%d bytes, want 288 at most", size)
	}
}

// endpointsInUse returns how many endpoints have pairs, in either engine.
func endpointsInUse(h *house) (n int) {
	e, ok := h.engine.(*loopEngine)
	if !ok {
		return portableEndpointsInUse(h)
	}
	for _, l := range e.loops {
		l.do(func() { n += len(l.byEndpoint) })
	}
	return n
}

// A client is not served by an endpoint that leaves while it is dialed.
func TestEndpointThatLeavesWhileItIsDialled(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		l := newFullListener(t)
		b := watchResets(t)
		c := dialTCP(t, h.serve(Service{OnLeave: OnLeave{Critical: -1}, ConnectTimeout: 20 * time.Second}, l.addr))
		eventually(t, equals("connections to the "+
			"endpoint", func() int64 { return h.balancer.Snapshot()[0].Open }, 1)) // the endpoint is about to be dialed
		h.leave(because{l.addr: lb.Critical}, b.addr)
		for range 2 { // the connection that fills the queue, and the one that waits
			eventually(t, func() error {
				fd, _, err := unix.Accept(l.fd)
				if err == nil {
					l.held = append(l.held, fd)
				}
				return err
			})
		}
		exchange(t, c, "hello")
		if s := h.stats(); s.DialsFailed != 0 || s.Refused != 0 {
			t.Errorf("got %+v, want no failure", s)
		}
	})
}
