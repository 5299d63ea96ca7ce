package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

func sendUrgent(t *testing.T, c testConn, text string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if werr := raw.Write(func(fd uintptr) bool {
		err = syscall.Sendto(int(fd), []byte(text), syscall.MSG_OOB, nil)
		return err != syscall.EAGAIN
	}); err != nil || werr != nil {
		t.Fatal(err, werr)
	}
}

// splice(2) stops at urgent data, and reports the end of the stream there if the end has come behind that data.
func TestTCPUrgentDataInBulk(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		const size = 4 << 20
		got := make(chan int64, 1)
		release := make(chan struct{})
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			<-release // until then the end of the stream arrives behind the urgent data
			n, err := io.Copy(io.Discard, c)
			if err != nil {
				t.Error(err)
			}
			got <- n
		}))
		c := dialTCP(t, addr)
		var wg sync.WaitGroup
		wg.Go(func() {
			c.Write(make([]byte, size))
			sendUrgent(t, c, "!")
			c.Write(make([]byte, size))
			c.CloseWrite()
		})
		eventually(t, func() error {
			if h.stats().BytesUp < size/4 {
				return errPending
			}
			return nil
		})
		close(release)
		wg.Wait()
		if n := <-got; n != 2*size+1 {
			t.Errorf("got %d bytes, want %d", n, 2*size+1)
		}
	})
}

// If the idle timeout cuts an answer short, the client must get a reset.
func TestTCPIdleEndOfAStuckAnswerIsAReset(t *testing.T) {
	forEachEngineAtOnce(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{IdleTimeout: time.Second}, tcpServer(t, func(c testConn) {
			io.ReadFull(c, make([]byte, 1))
			c.Write(make([]byte, 32<<20))
		}))
		for {
			before := h.stats().Connections
			c := dialTCP(t, addr)
			io.WriteString(c, "x")
			eventually(t, func() error {
				if s := h.stats(); s.Connections == before || s.ConnectionsActive > 0 {
					return errPending
				}
				return nil
			})
			n, err := io.Copy(io.Discard, c)
			if n == 0 && err == nil {
				continue // the server had not begun when the connection was idle for too long: nothing was cut short
			}
			wantReset(t, err)
			return
		}
	})
}

// If a client resets after it has finished sending, the server gets the reset while it works on the answer.
func TestTCPResetAfterTheEndIsPassedOn(t *testing.T) {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.options = Options{LoadBalancer: h.balancer}
	h.start()
	defer h.Close()
	asked, gone := make(chan struct{}), make(chan struct{})
	addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
		io.ReadAll(c)
		close(asked)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			state := uint8(0)
			raw.Control(func(fd uintptr) {
				if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
					state = info.State
				}
			})
			if state != unix.BPF_TCP_CLOSE {
				return errPending
			}
			return nil
		})
		close(gone)
	}))
	c := dialTCP(t, addr)
	io.WriteString(c, "request")
	c.CloseWrite()
	<-asked
	abort(c)
	<-gone
}

// A direction that has used up its share of a round waits for the next round, and is queued only once.
func TestLoopQueuesADirectionOnce(t *testing.T) {
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.options = Options{LoadBalancer: h.balancer, Loops: 1}
	addr := h.serve(Service{}, tcpServer(t, func(c testConn) { io.Copy(io.Discard, c) }))
	defer h.Close()
	l := h.engine.(*loopEngine).loops[0]
	l.do(func() { l.pipes.max = 0 }) // by read and write, whose share is small
	const senders = 4
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range senders {
		c := dialTCP(t, addr)
		wg.Go(func() {
			defer c.Close()
			for b := make([]byte, 256<<10); ; {
				select {
				case <-stop:
					return
				default:
					c.Write(b)
				}
			}
		})
	}
	worst := 0
	for range 500 {
		l.do(func() { worst = max(worst, len(l.again)+len(l.spare)) })
	}
	close(stop)
	wg.Wait()
	if worst > senders {
		t.Errorf("%d tasks for %d directions", worst, senders)
	}
}

// A dead endpoint of this host has a port in the range of local ports. Some dial gets that port, and so connects to
// itself.
func TestTCPDoesNotConnectToItself(t *testing.T) {
	low, _ := ephemeralPorts()
	if low == 0 {
		testproc.Cannot(t, "the range of local ports is unknown", errors.ErrUnsupported)
	}
	forEachEngine(t, func(t *testing.T, h *house) {
		var dead []netip.AddrPort
		for i := range uint16(3) {
			dead = append(dead, netip.AddrPortFrom(loopback.Addr(), (low+2000+2*i)&^1))
		}
		addr := h.serve(Service{}, dead...)
		for range 3000 {
			c, err := net.Dial("tcp", addr.String())
			if err != nil {
				continue // reset before connect returned
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, "ping")
			if n, _ := io.ReadFull(c, make([]byte, 4)); n > 0 {
				t.Fatal("got an answer from an endpoint where no process listens")
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
}

func TestSelfConnectionIsKnown(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(deadPort(t).Port())}
	if err := errors.Join(unix.Bind(fd, at), unix.Connect(fd, at)); err != nil {
		t.Fatal(err)
	}
	if !toItself(int32(fd)) {
		t.Error("a socket that is connected to itself was not recognised")
	}
	addr := tcpServer(t, echo)
	c := dialTCP(t, addr)
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if toItself(int32(f.Fd())) {
		t.Error("a proper connection was taken for a connection to itself")
	}
}

// The first address of a host name may be dead while a later address is served.
func TestTCPHostNameWithSeveralAddresses(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		server := tcpServer(t, named("alive"))
		addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", "localhost")
		if err != nil || len(addrs) < 2 {
			t.Skip("localhost has one address here:", addrs, err)
		}
		addr := h.serve(Service{})
		h.balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{
			{ID: "name", Host: "localhost", Addr: netip.AddrPortFrom(netip.Addr{}, server.Port())},
		}}})
		if got := ask(t, addr); got != "alive" {
			t.Errorf("got %q, want alive", got)
		}
	})
}

// A cut between the dial and the relay takes effect.
func TestPortableCutBeforeRelay(t *testing.T) {
	addr := tcpServer(t, func(c testConn) { io.ReadAll(c) })
	a, b := dialTCP(t, addr), dialTCP(t, addr)
	p := newPortablePair(a, b, newService(&Service{Name: "s"}, lb.NewRoundRobin(), hclog.NewNullLogger(), 1))
	p.cut(endCut, nil)
	testproc.Returns(t, "the relay of a pair that was cut before ends", func() { p.relay(nil) })
}
