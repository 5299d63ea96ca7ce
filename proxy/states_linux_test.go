package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// An act is what a peer does in a state of its pair.
type act int

const (
	stay act = iota
	fin
	rst
)

func (a act) String() string { return [...]string{"stays", "FIN", "RST"}[a] }

func (a act) do(c testConn) {
	switch a {
	case fin:
		c.CloseWrite()
	case rst:
		abort(c)
	}
}

// A couple is a client and the server that serves it.
type couple struct {
	*testing.T
	*house
	peers  [2]testConn
	sent   [2]int64 // bytes that each peer has sent, without the first byte
	acked  [2]int64 // part of sent that the proxy must have
	before int      // descriptors that were open
}

// newCouple connects a client to a server.
func newCouple(t *testing.T, h *house) *couple {
	t.Helper()
	hold, servers := make(chan struct{}), make(chan testConn, 1)
	addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		servers <- c
		<-hold
	}))
	t.Cleanup(func() { close(hold) })
	p := &couple{T: t, house: h, before: openDescriptors()}
	p.peers[clientSide] = dialTCP(t, addr)
	p.peers[serverSide] = <-servers
	// One byte moves each way. Before that, a reset may come before the proxy knows that the dial has succeeded, and
	// then it would count as a failed dial.
	for side, c := range p.peers {
		io.WriteString(c, "!")
		if _, err := io.ReadFull(p.peers[1-side], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// fill makes one peer send until the proxy accepts no more, because the other peer does not read.
func (p *couple) fill(from int) {
	p.Helper()
	c, n := p.peers[from], atomic.Int64{}
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			m, err := c.Write(stream(n.Load(), 64<<10))
			if n.Add(int64(m)); err != nil {
				return
			}
		}
	})
	raw, err := c.SyscallConn()
	if err != nil {
		p.Fatal(err)
	}
	stopped := func() (stopped bool) { // the sender is blocked, and not just slow
		raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			stopped = err == nil && n > 0
		})
		return stopped
	}
	last, calm := int64(0), 0
	eventually(p.T, func() error {
		now := n.Load()<<20 + movedBy(p.stats())
		if now == 0 || now != last || !stopped() {
			last, calm = now, 0
		}
		if calm++; calm < 12 {
			time.Sleep(5 * time.Millisecond)
			return errPending
		}
		return nil
	})
	c.SetWriteDeadline(time.Now())
	sender.Wait()
	c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	p.sent[from] = n.Load()
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			p.acked[from] = int64(info.Bytes_acked) - 2 // without the SYN and the first byte
		}
	})
	if p.acked[from] < 1 || p.acked[from] == p.sent[from] {
		p.Fatalf("%d bytes of %d are acknowledged, want some and not all", p.acked[from], p.sent[from])
	}
}

// movedBy returns how many bytes have moved in both directions.
func movedBy(s Stats) int64 { return s.BytesUp + s.BytesDown }

// stream returns n bytes of what a peer sends, from position at on. The stream repeats after a number of bytes that is
// not a power of two, so that lost or doubled bytes are noticed.
func stream(at int64, n int) []byte {
	return streamed()[at%streamRound:][:n]
}

const streamRound = 65521

// streamed is made once, because the race detector makes each byte expensive.
var streamed = sync.OnceValue(func() []byte {
	b := make([]byte, streamRound+64<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		if b[i] = byte(rnd.Uint32()); i >= streamRound {
			b[i] = b[i-streamRound]
		}
	}
	return b
})

// drain reads to the end and checks each byte. The error is nil for a proper end.
func (p *couple) drain(side int) (n int64, err error) {
	p.Helper()
	for b := make([]byte, 64<<10); ; {
		m, err := p.peers[side].Read(b)
		if !bytes.Equal(b[:m], stream(n, m)) {
			p.Fatalf("wrong bytes at %d", n)
		}
		if n += int64(m); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// refused writes until a write fails.
func (p *couple) refused(side int) {
	p.Helper()
	eventually(p.T, func() error {
		if _, err := p.peers[side].Write([]byte{0}); err != nil {
			if errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, net.ErrClosed) {
				p.Error(err)
			}
			return nil
		}
		return errors.New("the peer can still write")
	})
}

// settled checks that nothing of the pair remains, and that the counters are plausible.
func (p *couple) settled(received [2]int64) {
	p.Helper()
	for _, c := range p.peers {
		c.Close()
	}
	eventually(p.T, equals("connections", func() int64 { return p.stats().ConnectionsActive }, 0))
	eventually(p.T, func() error {
		if n := openDescriptors() - 2*pipesOpen(p.engine); n > p.before {
			return fmt.Errorf("%d descriptors are open, there were %d", n, p.before)
		}
		return nil
	})
	s := p.stats()
	if s.Connections != 1 || s.DialsFailed != 0 || s.Refused != 0 {
		p.Errorf("got %+v, want one connection that was served", s)
	}
	for side, moved := range []int64{s.BytesUp - 1, s.BytesDown - 1} {
		if moved > p.sent[side] || moved < received[1-side] {
			p.Errorf("side %d sent %d bytes, the other side got %d, and %d were counted", side,
				p.sent[side], received[1-side], moved)
		}
	}
}

// act makes both peers act, and checks what each peer sees. A peer gets everything that the other sent before a FIN,
// and at least what the proxy had before a RST. A FIN arrives as a FIN, and a RST as a RST.
func (p *couple) act(acts [2]act, ended [2]bool) {
	p.Helper()
	for side, a := range acts {
		a.do(p.peers[side])
	}
	var received [2]int64
	for side, mine := range acts {
		other := acts[1-side]
		switch {
		case mine == rst || other == stay && !ended[1-side]:
		case other == rst && ended[1-side]:
			p.refused(side) // the end of the other peer was read before
		case other == rst:
			n, err := p.drain(side)
			wantReset(p.T, err)
			if received[side] = n; n < p.acked[1-side] || n > p.sent[1-side] {
				p.Errorf("side %d got %d bytes before the reset, want %d to %d",
					side, n, p.acked[1-side], p.sent[1-side])
			}
		default:
			n, err := p.drain(side)
			if received[side] = n; err != nil || n != p.sent[1-side] {
				p.Errorf("side %d got %d bytes, %v, want %d and the end", side, n, err, p.sent[1-side])
			}
		}
	}
	// A peer that stayed can still send to a peer that has only finished sending.
	for side, mine := range acts {
		if mine == stay && !ended[side] && acts[1-side] != rst {
			p.peers[side].CloseWrite()
			n, err := p.drain(1 - side)
			if received[1-side] = n; err != nil || n != p.sent[side] {
				p.Errorf("side %d got %d bytes, %v, want %d and the end", 1-side, n, err, p.sent[side])
			}
		}
	}
	p.settled(received)
}

// In each state of a relaying pair, each peer does each possible act, and both act at once.
func TestTCPEndsInEachState(t *testing.T) {
	states := []struct {
		name  string
		set   func(p *couple)
		ended [2]bool // peers that cannot send another FIN
		long  bool    // skipped under faults, which are slow: a mirror or a mix of other states
	}{
		{"silent", func(p *couple) {}, [2]bool{}, false},
		{"server full, buffers in memory", func(p *couple) { withoutPipes(p.engine); p.fill(clientSide) }, [2]bool{},
			false},
		{"server full, bytes in a pipe", func(p *couple) { p.fill(clientSide) }, [2]bool{}, true},
		{"client full, buffers in memory", func(p *couple) { withoutPipes(p.engine); p.fill(serverSide) }, [2]bool{},
			true},
		{"client full, bytes in a pipe", func(p *couple) { p.fill(serverSide) }, [2]bool{}, false},
		{"both full", func(p *couple) { p.fill(clientSide); p.fill(serverSide) }, [2]bool{}, true},
		{"half-closed by the client", func(p *couple) { p.halfClose(clientSide) }, [2]bool{clientSide: true}, false},
		{"half-closed by the server", func(p *couple) { p.halfClose(serverSide) }, [2]bool{serverSide: true}, false},
	}
	for _, state := range states {
		if state.long && sys.Faults {
			continue
		}
		for _, c := range []act{stay, fin, rst} {
			for _, s := range []act{stay, fin, rst} {
				if c == stay && s == stay || c == fin && state.ended[clientSide] || s == fin &&
					state.ended[serverSide] {
					continue
				}
				t.Run(fmt.Sprintf("%s/client %v, server %v", state.name, c, s), func(t *testing.T) {
					forEachEngine(t, func(t *testing.T, h *house) {
						p := newCouple(t, h)
						state.set(p)
						p.act([2]act{c, s}, state.ended)
					})
				})
			}
		}
	}
}

// halfClose ends one direction, and waits until the other peer sees the end.
func (p *couple) halfClose(side int) {
	p.Helper()
	p.peers[side].CloseWrite()
	if n, err := p.drain(1 - side); n != 0 || err != nil {
		p.Fatalf("got %d bytes, %v, want the end", n, err)
	}
}

// If the server has reset, the pair waits for a moment so that the client can take the remaining bytes. The pair waits
// whatever the client does.
func TestTCPEndsWhileLingering(t *testing.T) {
	for _, a := range []act{stay, fin, rst} {
		t.Run("client "+a.String(), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				p := newCouple(t, h)
				b := stream(0, 64<<10)
				if _, err := p.peers[serverSide].Write(b); err != nil {
					t.Fatal(err)
				}
				p.sent[serverSide], p.acked[serverSide] = int64(len(b)), int64(len(b))
				eventually(t, equals("bytes written to the client",
					func() int64 { return h.stats().BytesDown }, 1+int64(len(b))))
				abort(p.peers[serverSide])
				var received [2]int64
				if a.do(p.peers[clientSide]); a != rst {
					n, err := p.drain(clientSide)
					wantReset(t, err)
					if received[clientSide] = n; n != int64(len(b)) {
						t.Errorf("got %d bytes before the reset, want %d", n, len(b))
					}
				}
				p.settled(received)
			})
		})
	}
}

// A fullListener has a full queue, so it neither accepts nor refuses.
type fullListener struct {
	*testing.T
	fd   int
	addr netip.AddrPort
	held []int
}

func newFullListener(t *testing.T) *fullListener {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	l := &fullListener{T: t, fd: socket()}
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(l.fd, at), unix.Listen(l.fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(l.fd)
	if err != nil {
		t.Fatal(err)
	}
	at.Port = sa.(*unix.SockaddrInet4).Port
	l.addr = netip.AddrPortFrom(loopback.Addr(), uint16(at.Port))
	c := socket() // a queue of 0 holds one connection
	if err := unix.Connect(c, at); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	l.held = append(l.held, l.fd, c)
	t.Cleanup(func() {
		for _, fd := range l.held {
			unix.Close(fd)
		}
	})
	return l
}

// refuse makes waiting dials fail when they retransmit their SYN.
func (l *fullListener) refuse() {
	unix.Close(l.fd)
	l.held = slices.DeleteFunc(l.held, func(fd int) bool { return fd == l.fd })
}

// accept frees a slot in the queue and accepts the waiting dial when it retransmits its SYN. accept returns what the
// dial sends.
func (l *fullListener) accept() string {
	l.Helper()
	accepted := func() (fd int) {
		eventually(l.T, func() (err error) {
			fd, _, err = unix.Accept(l.fd)
			return err
		})
		l.held = append(l.held, fd)
		return fd
	}
	accepted()
	fd := accepted()
	unix.SetNonblock(fd, false)
	got, b := "", make([]byte, 100)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return got + err.Error()
		}
		if n == 0 {
			return got + "FIN"
		}
		got += string(b[:n])
	}
}

// A client gives up or finishes its request before its endpoint has answered the dial.
func TestTCPEndsWhileConnecting(t *testing.T) {
	t.Run("client FIN, then the endpoint answers", func(t *testing.T) {
		forEachEngine(t, func(t *testing.T, h *house) {
			l := newFullListener(t)
			c := dialTCP(t, h.serve(Service{ConnectTimeout: 20 * time.Second}, l.addr))
			io.WriteString(c, "request ")
			c.CloseWrite()
			if got := l.accept(); got != "request FIN" {
				t.Errorf("the endpoint got %q, want the request and its end", got)
			}
		})
	})
	t.Run("the endpoint refuses late", func(t *testing.T) {
		forEachEngine(t, func(t *testing.T, h *house) {
			l := newFullListener(t)
			addr := h.serve(Service{ConnectTimeout: 20 * time.Second}, l.addr)
			c := dialTCP(t, addr)
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 1))
			h.endpoints("s", l.addr, tcpServer(t, echo))
			l.refuse()
			exchange(t, c, "hello")
			if s := h.stats(); s.DialsFailed != 1 || s.Refused != 0 {
				t.Errorf("got %d failed dials and %d refused clients, want 1 and 0", s.DialsFailed, s.Refused)
			}
		})
	})
	t.Run("client RST", func(t *testing.T) {
		forEachEngine(t, func(t *testing.T, h *house) {
			l := newFullListener(t)
			timeout := time.Second // the portable engine continues to dial until then
			if h.options.Engine == EngineAuto {
				timeout = time.Minute
			}
			c := dialTCP(t, h.serve(Service{ConnectTimeout: timeout}, l.addr))
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 1))
			abort(c)
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		})
	})
	t.Run("client RST, and the endpoint refuses", func(t *testing.T) {
		forEachEngine(t, func(t *testing.T, h *house) {
			l := newFullListener(t)
			c := dialTCP(t, h.serve(Service{ConnectTimeout: 20 * time.Second}, l.addr))
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 1))
			l.refuse()
			abort(c)
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		})
	})
}
