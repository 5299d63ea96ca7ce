package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A script says what both ends of one connection do. A script is made from a seed that the client sends first. Each end
// sends a stream in pieces of all sizes and then ends it. Each byte of a stream depends on its position, so the other
// end can check the byte.
type script struct {
	seed uint64
	ends [2]endScript // the client's, then the server's
}

type endScript struct {
	size   int    // bytes to send, unless the connection ends before
	slow   bool   // pauses now and then while it sends
	lazy   bool   // pauses now and then while it reads
	late   bool   // reads only after it has sent everything
	polite bool   // sends only after the other end has finished
	tiny   bool   // reads a few bytes at a time
	last   ending // how it ends what it sends
	resets int    // with reset: number of bytes before the reset
}

// An ending is how an end ends what it sends.
type ending int

const (
	finish   ending = iota // sends a FIN, and then reads to the end
	reset                  // sends a RST at some point
	resetFIN               // sends a FIN, and then a RST without reading to the end
)

func newScript(seed uint64) script {
	rnd := rand.New(rand.NewPCG(seed, 7))
	s := script{seed: seed}
	for i := range s.ends {
		e := endScript{
			size: rnd.IntN([]int{1, 100, 20 << 10, 300 << 10, 2 << 20}[rnd.IntN(5)]),
			slow: rnd.IntN(4) == 0,
			lazy: rnd.IntN(4) == 0,
			late: rnd.IntN(6) == 0,
		}
		if e.last = []ending{finish, finish, finish, finish, finish, finish, finish, finish, reset,
			resetFIN}[rnd.IntN(10)]; e.last == reset {
			e.resets = rnd.IntN(e.size + 1)
		}
		s.ends[i] = e
	}
	for i := range s.ends { // not if there is much to read
		s.ends[i].tiny = s.ends[1-i].size < 20<<10 && !s.ends[i].lazy && rnd.IntN(4) == 0
	}
	// Two ends that wait for each other would wait for ever.
	if s.ends[0].late && s.ends[1].late {
		s.ends[1].late = false
	}
	if s.ends[1].polite = rnd.IntN(4) == 0; s.ends[1].polite {
		s.ends[0].late, s.ends[1].late = false, false
	}
	return s
}

// at returns the byte at a position of an end's stream.
func (s *script) at(end, i int) byte { return byte(uint64(i)*2654435761>>9 ^ s.seed ^ uint64(end)*37) }

// A score is how many bytes an end sent and received.
type score struct{ sent, received int }

// play does what the script says for one end, and returns an error if the other end did not.
func (s *script) play(c testConn, end int) (score, error) {
	mine, other := s.ends[end], s.ends[1-end]
	var sum score
	var serr, rerr error
	var wg sync.WaitGroup
	done := make(chan struct{})
	read := func() { sum.received, rerr = s.check(c, 1-end) }
	switch {
	case mine.late:
		sum.sent, serr = s.send(c, end)
		read()
	case mine.polite:
		if read(); rerr == nil {
			sum.sent, serr = s.send(c, end)
		}
	default:
		wg.Go(func() {
			sum.sent, serr = s.send(c, end)
			close(done)
		})
		if mine.last != resetFIN {
			read()
		} else {
			<-done
		}
		wg.Wait()
	}
	if mine.last == resetFIN && serr == nil {
		resetTCP(c)
	}
	switch {
	case errors.Is(rerr, errWrongByte):
		return sum, rerr
	case mine.last != finish:
		return sum, nil // this end may not expect anything more
	case other.last == finish:
		if rerr != nil || serr != nil || sum.received != other.size {
			return sum, fmt.Errorf("got %d of %d bytes, %v, and sent %d of %d, %v", sum.received, other.size, rerr,
				sum.sent, mine.size, serr)
		}
	case rerr == nil && serr == nil && !(other.last == resetFIN && sum.received == other.size):
		// Any bytes may be cut off, but the end must not look like a proper one. Linux reports a reset once: if a write
		// has reported it, the next read finds the end of the stream.
		return sum, fmt.Errorf("got a proper end after %d of %d bytes, but the end resets", sum.received, other.size)
	}
	for _, err := range []error{rerr, serr} {
		if err == errNoNotify { // Linux has reported the reset to the writer
			continue
		}
		if err != nil && !isReset(err) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ENOTCONN) {
			return sum, fmt.Errorf("got %v, want a reset", err)
		}
	}
	return sum, nil
}

// send sends an end's stream, and ends it.
func (s *script) send(c testConn, end int) (sent int, err error) {
	mine := s.ends[end]
	rnd := rand.New(rand.NewPCG(s.seed, uint64(end)))
	size := mine.size
	if mine.last == reset {
		size = mine.resets
	}
	buf := make([]byte, 64<<10)
	for sent < size {
		n := min(1+rnd.IntN([]int{10, 2000, len(buf)}[rnd.IntN(3)]), size-sent)
		for k := range n {
			buf[k] = s.at(end, sent+k)
		}
		n, err := c.Write(buf[:n])
		if sent += n; err != nil {
			return sent, err
		}
		if mine.slow && rnd.IntN(8) == 0 {
			time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
		}
	}
	if mine.last == reset {
		resetTCP(c)
		return sent, nil
	}
	return sent, c.CloseWrite()
}

var errWrongByte = errors.New("wrong byte")

// check reads and checks the stream to its end, and returns its length. The error is nil for a proper end.
func (s *script) check(c testConn, from int) (int, error) {
	mine := s.ends[1-from]
	buf := make([]byte, 32<<10)
	if mine.tiny {
		buf = buf[:7]
	}
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
		if mine.lazy && got%5 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// These variables set the first seed of a random test and its duration on each engine. Set them to reproduce a failure
// or to look for rare ones.
const (
	seedVariable = "LICTOR_TEST_SEED"
	timeVariable = "LICTOR_TEST_TIME"
)

// randomRun returns the first seed, which it logs, and a function that reports whether to play seed number n.
func randomRun(t *testing.T, total uint64) (first uint64, more func(n uint64) bool) {
	first = rand.Uint64()
	if v := os.Getenv(seedVariable); v != "" {
		var err error
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("to run the same again, set %s=%d", seedVariable, first)
	limit := 20 * time.Second
	if v := os.Getenv(timeVariable); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("%s: %v", timeVariable, err)
		}
		limit, total = d, 1<<63
	}
	until := time.Now().Add(limit)
	return first, func(n uint64) bool { return n < total && time.Now().Before(until) }
}

// threeAndADeadOne returns the addresses of three servers, and of an endpoint that is dead unless clients would notice.
func threeAndADeadOne(t *testing.T, server func(testConn)) []netip.AddrPort {
	all := []netip.AddrPort{tcpServer(t, server), tcpServer(t, server), tcpServer(t, server)}
	if past == nil {
		all = append(all, deadPort(t))
	}
	return all
}

// Thousands of connections do random things, and every byte is checked. Meanwhile the endpoints change, and some of
// them are dead.
func TestTCPRandomConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		first, more := randomRun(t, randomConnections())
		var sent, received [2]atomic.Int64
		const header = 8 // the seed
		keep := func(end int, s score) {
			sent[end].Add(int64(s.sent))
			received[end].Add(int64(s.received))
		}
		var problems sync.Map
		server := func(c testConn) {
			var seed [header]byte
			c.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(c, seed[:]); err != nil {
				return
			}
			s := newScript(binary.BigEndian.Uint64(seed[:]))
			result, err := s.play(c, 1)
			result.received += header + saidFirst()
			if keep(1, result); err != nil {
				problems.Store(fmt.Sprintf("server of %d", s.seed), fmt.Errorf("%w: %+v", err, s.ends))
			}
		}
		all := threeAndADeadOne(t, server)
		addr := h.serve(Service{}, all...)
		before := settledDescriptors()

		stop := make(chan struct{})
		var churn, clients sync.WaitGroup
		churn.Go(func() {
			for i := 0; sleep(stop, time.Millisecond); i++ {
				h.endpoints("s", append([]netip.AddrPort{all[i%len(all)]}, all[:3]...)...)
			}
		})
		seeds := make(chan uint64)
		for range 48 {
			clients.Go(func() {
				for seed := range seeds {
					s := newScript(seed)
					result, err := s.playClient(addr)
					result.sent += header + saidFirst()
					if keep(0, result); err != nil {
						problems.Store(fmt.Sprintf("client of %d", seed), fmt.Errorf("%w: %+v", err, s.ends))
					}
				}
			})
		}
		played := uint64(0)
		for ; more(played); played++ {
			seeds <- first + played
		}
		close(seeds)
		clients.Wait()
		close(stop)
		churn.Wait()
		reportProblems(t, &problems)
		eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		c := h.stats()
		if failed := c.DialsFailed > 0; c.Connections != int64(played) || c.Refused != 0 || failed != (len(all) == 4) {
			t.Errorf("got %+v of %d endpoints, want %d connections, no client refused and dials to the fourth failed",
				c, len(all), played)
		}
		eventually(t, func() error { // the last servers may not have recorded yet what they sent
			return errors.Join(
				isBetween(c.BytesUp, received[1].Load(), sent[0].Load()),
				isBetween(c.BytesDown, received[0].Load(), sent[1].Load()))
		})
		eventually(t, noMoreDescriptors(before))
	})
}

// randomConnections returns how many connections TestTCPRandomConnections makes.
func randomConnections() uint64 {
	switch {
	case encrypted.client || encrypted.endpoint: // handshakes cost far more than the rest
		return 150
	case opensWith.hello:
		return 500
	case testing.Short() || slowTests:
		return 800
	}
	return 2000
}

// reportProblems reports the errors in problems, with the end that had them.
func reportProblems(t *testing.T, problems *sync.Map) {
	problems.Range(func(who, err any) bool {
		t.Errorf("%v: %v", who, err)
		return true
	})
}

// isBetween returns an error unless the counted bytes are between those received and those sent.
func isBetween(moved, received, sent int64) error {
	if moved > sent || moved < received {
		return fmt.Errorf("%d bytes were sent and %d received, but %d were counted",
			sent, received, moved)
	}
	return nil
}

// playClient connects and plays the client's end.
func (s *script) playClient(addr netip.AddrPort) (score, error) {
	c, err := dialAs(addr.String())
	if err != nil {
		return score{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, s.seed)); err != nil {
		return score{}, err
	}
	return s.play(c, 0)
}
