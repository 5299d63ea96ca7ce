package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A udpClient sends datagrams alone and in bursts that the kernel segments. Their contents depend on the client and the
// datagram's number, so the client can check that each answer is its own and complete.
type udpClient struct {
	id             byte
	conn           *net.UDPConn
	rnd            *rand.Rand
	next           uint32
	mu             sync.Mutex
	sizes          map[uint32]int // sizes of the datagrams that were sent
	sent, received int64
	strays         int64 // received answers to other clients
}

const udpHeader = 5 // id and number; a shorter datagram repeats the id

func (c *udpClient) fill(b []byte, place uint32) {
	for i := range b {
		b[i] = c.id
		if len(b) >= udpHeader {
			b[i] ^= byte(uint32(i)*2654435761>>13 ^ place)
		}
	}
	if len(b) >= udpHeader {
		b[0] = c.id
		binary.BigEndian.PutUint32(b[1:], place)
	}
}

// play sends one or more datagrams.
func (c *udpClient) play(t *testing.T) {
	sizes := []int{0, 1, udpHeader, 60, 512, 1200, 1472, 9000, 40000, 65507}
	size, n := sizes[c.rnd.IntN(len(sizes))], 1
	if c.rnd.IntN(3) == 0 && size > 0 && size <= 1472 {
		n = min(2+c.rnd.IntN(30), 65000/size)
	}
	last := size
	if n > 1 {
		last = 1 + c.rnd.IntN(size)
	}
	b := make([]byte, (n-1)*size+last)
	for i := range n {
		part := b[i*size : min((i+1)*size, len(b))]
		c.fill(part, c.next)
		c.mu.Lock()
		c.sizes[c.next] = len(part)
		c.mu.Unlock()
		c.next++
	}
	segment := 0
	if n > 1 {
		segment = size
	}
	setUDP(t, c.conn, unix.SOL_UDP, unix.UDP_SEGMENT, segment)
	if _, err := c.conn.Write(b); err == nil {
		c.sent += int64(n)
	}
}

// check reads and checks answers until the client is closed. check returns the first error.
func (c *udpClient) check() error {
	buf, want := make([]byte, maxDatagram), make([]byte, maxDatagram)
	for {
		n, err := c.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		c.received++
		if n > 0 && buf[0] != c.id {
			c.strays++
			continue
		}
		place := uint32(0)
		if n >= udpHeader {
			place = binary.BigEndian.Uint32(buf[1:])
			c.mu.Lock()
			size, ok := c.sizes[place]
			c.mu.Unlock()
			if !ok || size != n {
				return fmt.Errorf("client %d got %d bytes as datagram %d, which had %d", c.id, n, place, size)
			}
		}
		if c.fill(want[:n], place); !bytes.Equal(buf[:n], want[:n]) {
			return fmt.Errorf("client %d got %d bytes that are not what it sent as datagram %d", c.id, n, place)
		}
	}
}

// A udpFlock is a set of echoing endpoints, which sometimes are closed or unknown to the balancer.
type udpFlock struct {
	*house
	addrs   []netip.AddrPort
	conns   []*net.UDPConn
	running sync.WaitGroup
	got     atomic.Int64
}

func (f *udpFlock) open(i int) {
	if i == len(f.addrs) {
		// freePort returns no port that a session could get while the endpoint is closed.
		f.addrs, f.conns = append(f.addrs, freePort(f.T, UDP)), append(f.conns, nil)
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(f.addrs[i]))
	if err != nil {
		f.Fatal(err)
	}
	f.conns[i] = c
	f.running.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				f.got.Add(1)
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	})
}

// churn reopens one endpoint, or changes the set of known endpoints.
func (f *udpFlock) churn(rnd *rand.Rand) {
	if i := rnd.IntN(len(f.addrs)); rnd.IntN(2) == 0 {
		f.conns[i].Close()
		time.Sleep(2 * time.Millisecond) // the endpoint refuses meanwhile
		f.open(i)
		return
	}
	var known []netip.AddrPort
	for _, a := range f.addrs {
		if rnd.IntN(4) > 0 {
			known = append(known, a)
		}
	}
	f.endpoints("s", known...)
}

// Clients and endpoints act at random. Each client gets its own complete answers, the counters agree with both
// ends, and no session remains at the end.
func TestUDPRandom(t *testing.T) {
	for _, tt := range []struct {
		name string
		Service
	}{
		{"plain", Service{}},
		{"dns", Service{Responses: 1}},
		{"spread", Service{Requests: 3}},
		{"spread dns", Service{Requests: 1, Responses: 1}},
		{"crowded", Service{MaxSessions: 6, Responses: 1}},
		{"one way", Service{Responses: -1}},
		{"syslog", Service{Responses: -1, Requests: 1, MaxSessions: 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				h.options.Loops = 2
				tt.Protocol, tt.IdleTimeout = UDP, 100*time.Millisecond
				randomUDP(t, h, tt.Service)
			})
		})
	}
}

func randomUDP(t *testing.T, h *house, s Service) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := &udpFlock{house: h}
	for i := range 4 {
		f.open(i)
	}
	addr := h.serve(s, f.addrs...)
	taken, open := h.budget.taken(), settledDescriptors()
	clients := make([]*udpClient, 16)
	var sending, reading sync.WaitGroup
	end := time.Now().Add(200 * time.Millisecond)
	for i := range clients {
		c := &udpClient{id: byte(i + 1), conn: dialUDP(t, addr), rnd: rand.New(rand.NewPCG(seed, uint64(i+1))),
			sizes: map[uint32]int{}}
		clients[i] = c
		reading.Go(func() {
			if err := c.check(); err != nil {
				t.Error(err)
			}
		})
		sending.Go(func() {
			for time.Now().Before(end) {
				c.play(t)
				time.Sleep(time.Duration(c.rnd.IntN(4)) * time.Millisecond)
			}
		})
	}
	for time.Now().Before(end) {
		f.churn(rnd)
		time.Sleep(5 * time.Millisecond)
	}
	sending.Wait()
	h.endpoints("s", f.addrs...)
	eventually(t, equals("active sessions", func() int64 { return h.stats().SessionsActive }, 0))
	eventually(t, equals("descriptors taken", h.budget.taken, taken))
	eventually(t, noMoreDescriptors(open+len(clients)))
	var sent, received, strays int64
	for _, c := range clients {
		c.conn.Close()
	}
	reading.Wait()
	for _, c := range clients {
		sent, received, strays = sent+c.sent, received+c.received, strays+c.strays
	}
	for i := range f.conns {
		f.conns[i].Close()
	}
	f.running.Wait()
	st := h.stats()
	// The kernel may give the port of a session that has just ended to the next session. If both are with the same
	// endpoint, a late answer to the first reaches the client of the second.
	if strays > 3 {
		t.Errorf("%d answers reached other clients", strays)
	}
	t.Logf("sent %d, arrived %d, received %d: %+v", sent, f.got.Load(), received, st)
	if f.got.Load() > st.DatagramsUp || st.DatagramsUp > sent || received > st.DatagramsDown ||
		st.DatagramsDown > f.got.Load() {
		t.Errorf("sent %d, arrived %d, received %d, counted %+v", sent, f.got.Load(), received, st)
	}
	// If MaxSessions is low, answers may come after their session has ended.
	if f.got.Load() == 0 || received == 0 && s.Responses >= 0 && s.MaxSessions == 0 || received > 0 && s.Responses < 0 {
		t.Errorf("%d datagrams arrived and %d answers", f.got.Load(), received)
	}
}
