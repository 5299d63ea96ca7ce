package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A script is what both ends of one connection do, made from a seed that the client sends first. Each end sends a stream of bytes that
// are known by their place, in pieces of all sizes, then ends it, while it reads and checks what the other sends.
type script struct {
	seed uint64
	ends [2]endScript // client's, server's
}

type endScript struct {
	size  int  // bytes to send
	slow  bool // pauses now and then while sending
	lazy  bool // pauses now and then while reading
	reset bool // ends by RST once it has sent half, instead of a FIN after all
}

func newScript(seed uint64) script {
	rnd := rand.New(rand.NewPCG(seed, 7))
	s := script{seed: seed}
	for i := range s.ends {
		s.ends[i] = endScript{
			size:  rnd.IntN([]int{1, 100, 20 << 10, 300 << 10, 2 << 20}[rnd.IntN(5)]),
			slow:  rnd.IntN(4) == 0,
			lazy:  rnd.IntN(4) == 0,
			reset: rnd.IntN(10) == 0,
		}
	}
	return s
}

// at is the byte at a place of an end's stream.
func (s *script) at(end, i int) byte { return byte(uint64(i)*2654435761>>9 ^ s.seed ^ uint64(end)*37) }

// play does what the script says for one end, and returns what was wrong.
func (s *script) play(c *net.TCPConn, end int) error {
	mine, other := s.ends[end], s.ends[1-end]
	var sent error
	var wg sync.WaitGroup
	wg.Go(func() { sent = s.send(c, end) })
	got, err := s.check(c, 1-end, mine.lazy)
	wg.Wait()
	switch {
	case errors.Is(err, errWrongByte):
		return err
	case mine.reset || other.reset:
		// Anything may be cut off, but it must not look like the proper end. (Linux tells of a reset once; if writing was told, reading
		// finds the end.)
		if err == nil && got != other.size && sent == nil {
			return fmt.Errorf("got a proper end after %d of %d bytes", got, other.size)
		}
		return nil
	case err != nil || got != other.size:
		return fmt.Errorf("got %d of %d bytes, then %v", got, other.size, err)
	}
	return sent
}

func (s *script) send(c *net.TCPConn, end int) error {
	mine := s.ends[end]
	rnd := rand.New(rand.NewPCG(s.seed, uint64(end)))
	buf := make([]byte, 64<<10)
	for i := 0; i < mine.size; {
		if mine.reset && i >= mine.size/2 {
			break
		}
		n := min(1+rnd.IntN([]int{10, 2000, len(buf)}[rnd.IntN(3)]), mine.size-i)
		for k := range n {
			buf[k] = s.at(end, i+k)
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
		if i += n; mine.slow && rnd.IntN(8) == 0 {
			time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
		}
	}
	if mine.reset {
		abort(c)
		return nil
	}
	return c.CloseWrite()
}

var errWrongByte = errors.New("wrong byte")

// check reads to the end, and returns how much there was; nil for a proper end.
func (s *script) check(c *net.TCPConn, from int, lazy bool) (int, error) {
	buf := make([]byte, 32<<10)
	for got := 0; ; {
		n, err := c.Read(buf)
		for k := range n {
			if buf[k] != s.at(from, got+k) {
				return got, fmt.Errorf("%w at %d", errWrongByte, got+k)
			}
		}
		got += n
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if lazy && got%5 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// Thousands of connections do random things, and every byte is checked. The endpoints change meanwhile, and some are dead.
func TestTCPRandomConnections(t *testing.T) {
	total := 3000
	if testing.Short() || slowTests {
		total = 800
	}
	forEachEngine(t, func(t *testing.T, h *house) {
		var problems sync.Map
		server := func(c *net.TCPConn) {
			var header [8]byte
			c.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(c, header[:]); err != nil {
				return
			}
			s := newScript(binary.BigEndian.Uint64(header[:]))
			if err := s.play(c, 1); err != nil {
				problems.Store(fmt.Sprintf("server of %d", s.seed), err)
			}
		}
		all := []netip.AddrPort{tcpServer(t, server), tcpServer(t, server), tcpServer(t, server), deadPort(t)}
		addr := h.serve(Service{}, all...)
		before := openDescriptors()

		stop := make(chan struct{})
		var churn, clients sync.WaitGroup
		churn.Go(func() {
			for i := 0; wait(stop, time.Millisecond); i++ {
				h.endpoints("s", append([]netip.AddrPort{all[i%4]}, all[:3]...)...)
			}
		})
		seeds := make(chan uint64)
		for range 48 {
			clients.Go(func() {
				for seed := range seeds {
					if err := playClient(addr, seed); err != nil {
						problems.Store(fmt.Sprintf("client of %d", seed), err)
					}
				}
			})
		}
		for seed := range uint64(total) {
			seeds <- seed
		}
		close(seeds)
		clients.Wait()
		close(stop)
		churn.Wait()
		problems.Range(func(who, err any) bool {
			t.Errorf("%v: %v", who, err)
			return true
		})
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		eventually(t, func() error {
			runtime.GC() // for the pipes of package net
			if now := openDescriptors(); now > before {
				return fmt.Errorf("%d descriptors open, there were %d", now, before)
			}
			return nil
		})
	})
}

func playClient(addr netip.AddrPort, seed uint64) error {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	s := newScript(seed)
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, seed)); err != nil {
		return err
	}
	return s.play(c.(*net.TCPConn), 0)
}
