//go:build amd64 || arm64

package kernel

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// newHasher returns the address of an endpoint that answers each connection with the hash of all that it has received.
func newHasher(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			running.Go(func() {
				h := sha256.New()
				_, _ = io.Copy(h, c) // a client that gets another hash fails the test
				_, _ = c.Write(h.Sum(nil))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// stream sends data over a connection, and checks the hash that comes back.
func stream(front string, data []byte) error {
	conn, err := net.DialTimeout("tcp4", front, testproc.Patience)
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(testproc.Patience)); err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if want := sha256.Sum256(data); err == nil && !bytes.Equal(got, want[:]) {
		err = fmt.Errorf("%d bytes arrived with the hash %x, want %x", len(data), got, want)
	}
	return err
}

// Nothing listens at the address of the service, so a client fails if the programs find no endpoint for a moment.
func TestChangesFailNoConnect(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	const changes, streams, clients = 40_000, 10_000, 8
	p := open(t, Options{Cgroup: group})
	reserved, front, err := reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(reserved) })
	var all []Endpoint
	for i := range 20 {
		all = append(all, Endpoint{Addr: newHasher(t), Weight: 1 + i%3, Key: uint64(i)})
	}
	s := Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: all}
	set(t, p, s)

	var done atomic.Int64
	var running sync.WaitGroup
	changed := make(chan struct{})
	for range clients {
		running.Go(func() {
			data := make([]byte, 20_000)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			for {
				select {
				case <-changed:
					if done.Load() >= streams {
						return
					}
				default:
				}
				if err := stream(front.String(), data[:rand.IntN(len(data))]); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	order := rand.Perm(len(all))
	for range changes {
		order[0], order[len(order)-1] = order[len(order)-1], order[0]
		first := rand.IntN(len(all))
		s.Endpoints = nil
		for _, n := range order[first : first+1+rand.IntN(len(all)-first)] {
			s.Endpoints = append(s.Endpoints, all[n])
		}
		set(t, p, s)
	}
	close(changed)
	running.Wait()
	t.Logf("%d changes, %d streams", changes, done.Load())
}

// BenchmarkSet replaces all endpoints of a service.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n, " endpoints"), func(b *testing.B) {
			p, err := Open(Options{Cgroup: testcgroup.Make(b).Name})
			if err != nil {
				testproc.Cannot(b, "the kernel path cannot be opened", err)
			}
			defer func() { _ = p.Close() }()
			var sets [2]Service
			for i := range sets {
				sets[i] = Service{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}
				for k := range n {
					addr := netip.AddrFrom4([4]byte{10, byte(i), byte(k >> 8), byte(k)})
					sets[i].Endpoints = append(sets[i].Endpoints,
						Endpoint{Addr: netip.AddrPortFrom(addr, 80), Key: uint64(i*n + k)})
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := p.Set(sets[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
