//go:build faults && linux

package proxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// If dials fail in all ways, at once and late, a client gets the next endpoint, or a reset if there is none. Each
// failure is counted once.
func TestLoopDialsThatFail(t *testing.T) {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.options = Options{LoadBalancer: h.balancer}
	addr := h.serve(Service{ConnectTimeout: 20 * time.Second}, tcpServer(t, named("a")), tcpServer(t, named("b")),
		tcpServer(t, named("c")), tcpServer(t, named("d")))
	defer h.Close()
	before := openDescriptors()
	sys.FailDials(40)
	defer func() { sys.FailDials(0) }()
	const clients = 2000
	var served, reset atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range clients / 20 {
				c, err := net.Dial("tcp", addr.String())
				if err != nil {
					reset.Add(1) // the reset came before connect returned
					continue
				}
				c.SetDeadline(time.Now().Add(30 * time.Second))
				switch b, err := io.ReadAll(c); {
				case err == nil && len(b) == 1:
					served.Add(1)
				case isReset(err) && len(b) == 0:
					reset.Add(1)
				default:
					t.Errorf("got %q, %v, want one letter or a reset", b, err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
	s := h.stats()
	if s.Connections != clients || s.DialsFailed != sys.FailedDials() || s.Refused != reset.Load() ||
		s.BytesDown != served.Load() {
		t.Errorf("got %+v; want %d connections, %d failed dials, %d refused and %d served", s, clients,
			sys.FailedDials(), reset.Load(), served.Load())
	}
	if served.Load() == 0 || reset.Load() == 0 {
		t.Errorf("%d clients were served and %d reset, want some of both", served.Load(), reset.Load())
	}
	eventually(t, equals("descriptors beyond pipes",
		func() bool { return openDescriptors()-2*pipesOpen(h.engine) <= before }, true))
}
