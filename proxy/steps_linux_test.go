package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// A steppedLoop is an event loop that runs one turn at a time when the test asks for it. The test can count turns, and
// act between them.
type steppedLoop struct {
	*testing.T
	*eventLoop
	service *service
	addr    netip.AddrPort
}

// newSteppedLoop returns a loop that listens for one service with the given endpoints. After the test the loop runs by
// itself.
func newSteppedLoop(t *testing.T, endpoints ...netip.AddrPort) *steppedLoop {
	t.Helper()
	denied := newDenials(hclog.NewNullLogger())
	l, err := newLoop(0, loopPipes, time.Now(), hclog.NewNullLogger(), denied)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{T: t, balancer: lb.NewRoundRobin()}
	h.endpoints("s", endpoints...)
	e := &loopEngine{budget: newBudget(0, 1), denied: denied, loops: []*eventLoop{l}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	s := newService(&Service{Name: "s"}, h.balancer, hclog.NewNullLogger(), 1)
	s.share = e.budget.newShare()
	socket, err := e.listenTCP(listenSpec{addr: lb.Addr{AddrPort: loopback}}, s)
	if err := errors.Join(err, e.budget.openListener(listenerDescriptors)); err != nil {
		t.Fatal(err)
	}
	// The receive buffer must hold more than a share, and accepted sockets inherit it from their listener. RCVBUFFORCE
	// succeeds only for privileged users.
	sys.SetOption(socket.(*loopTCP).fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	sys.SetOption(socket.(*loopTCP).fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err := socket.ProxyLoop(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.running.Go(l.run)
		socket.Close()
		e.close()
	})
	return &steppedLoop{T: t, eventLoop: l, service: s, addr: socket.Addr().AddrPort}
}

// step runs one turn, which does not wait for events.
func (l *steppedLoop) step() {
	l.post(func() {})
	l.runTurn()
}

// stepUntil runs turns until ok returns true.
func (l *steppedLoop) stepUntil(what string, ok func() bool) {
	l.Helper()
	eventually(l.T, func() error {
		l.step()
		if !ok() {
			return errors.New(what + ": not yet")
		}
		return nil
	})
}

// connected returns a client and its pair, which relays.
func (l *steppedLoop) connected() (testConn, *loopPair) {
	l.Helper()
	c := dialTCP(l.T, l.addr)
	src := c.LocalAddr().(*net.TCPAddr).AddrPort()
	var pair *loopPair
	l.stepUntil("a pair that relays", func() bool {
		for _, s := range l.sockets {
			if p, ok := s.(*loopPair); ok && p.src == src && p.state == relaying {
				pair = p
			}
		}
		return pair != nil
	})
	return c, pair
}

// waiting returns how many bytes wait to be read from a socket.
func waiting(fd int32) int {
	n, _ := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	return n
}

// endless writes until a write fails, and reads meanwhile.
func endless(c testConn) {
	go io.Copy(io.Discard, c)
	for b := make([]byte, 256<<10); ; {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// In one turn a direction moves at most its share, by read and write as well as by splice. If its destination was full
// and is not any more, there are two events, and the direction may move two shares.
func TestLoopTurnMovesAShare(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pipes int
		share int
	}{
		{"read and write", 0, readsPerTurn * bufferSize},
		{"splice", maxPipes, bytesPerTurn + pipeSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hold := make(chan struct{})
			l := newSteppedLoop(t, tcpServer(t, func(c testConn) {
				go io.Copy(io.Discard, c)
				<-hold
			}))
			defer close(hold)
			l.pipes.max = tt.pipes
			c, p := l.connected()
			go endless(c)
			last := 0
			eventually(t, func() error { // until the socket's buffer is full
				now := waiting(p.fd[clientSide])
				if now == 0 || now != last {
					last = now
					return errPending
				}
				return nil
			})
			before := p.flows[clientSide].moved
			for i := range 20 {
				l.step()
				shares := 2
				if i == 0 {
					shares = 1
				}
				if sys.Faults {
					shares = 3 // one event may be injected
				}
				now := p.flows[clientSide].moved
				if now-before > int64(shares*tt.share) {
					t.Fatalf("turn %d moved %d bytes of %d that waited, want %d shares of %d at most",
						i, now-before, last, shares, tt.share)
				}
				before = now
			}
			if before == 0 {
				t.Error("no bytes moved")
			}
		})
	}
}

// A busy pair uses both directions, but other pairs still move their bytes in the very next turn.
func TestLoopBusyPairStarvesNobody(t *testing.T) {
	for _, pipes := range []int{0, maxPipes} {
		t.Run(fmt.Sprint(pipes, " pipes"), func(t *testing.T) {
			l := newSteppedLoop(t, tcpServer(t, func(c testConn) {
				b := make([]byte, 1)
				if io.ReadFull(c, b); b[0] == 'b' {
					endless(c)
				} else {
					c.Write(b)
					echo(c)
				}
			}))
			l.pipes.max = pipes
			busy, busyPair := l.connected()
			quiet, quietPair := l.connected()
			io.WriteString(busy, "b")
			go endless(busy)
			deadline := time.Now().Add(20 * time.Second)
			limit, exchanges := 1, 100
			if sys.Faults {
				limit, exchanges = 200, 20 // faults may delay events of epoll
			}
			for i := range exchanges {
				for side, c := range []testConn{quiet, nil} {
					turns := 0
					if c != nil {
						io.WriteString(c, "q")
					}
					for arrived := false; quietPair.flows[side].moved == int64(i); {
						if arrived = arrived || waiting(quietPair.fd[side]) > 0; arrived {
							turns++
						}
						if l.step(); time.Now().After(deadline) {
							t.Fatalf("exchange %d, side %d: no byte moved; %d have arrived, the pair is %v %+v", i,
								side, waiting(quietPair.fd[side]), quietPair.state, quietPair)
						}
					}
					if turns > limit {
						t.Fatalf("exchange %d: %d turns until an arrived byte moved, want %d", i, turns, limit)
					}
				}
				io.ReadFull(quiet, make([]byte, 1))
			}
			for side := range busyPair.flows {
				if busyPair.flows[side].moved < 1<<20 {
					t.Errorf("the busy pair moved %d bytes from side %d, which proves nothing",
						busyPair.flows[side].moved, side)
				}
			}
		})
	}
}
