package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// records collects the access records of the house. records returns a function that waits for the next record.
func (h *house) records() (next func() AccessRecord) {
	var mu sync.Mutex
	var records []AccessRecord
	h.options.Access = func(r AccessRecord) {
		mu.Lock()
		defer mu.Unlock()
		records = append(records, r)
	}
	return func() (r AccessRecord) {
		h.Helper()
		eventually(h.T, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(records) == 0 {
				return errors.New("no record")
			}
			r, records = records[0], records[1:]
			return nil
		})
		return r
	}
}

// Each TCP connection makes a record, with its duration, its bytes and which side ended it.
func TestAccessIsToldOfEachConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		server := tcpServer(t, func(c testConn) {
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if string(b) == "reset" {
				c.SetLinger(0)
				return
			}
			c.Write([]byte("thanks!"))
			io.Copy(io.Discard, c)
		})
		addr := h.serve(Service{}, server)

		c := dialTCP(t, addr)
		c.Write([]byte("12345"))
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		r := next()
		if r.Service != "s" || r.Endpoint.Addr != server || r.Up != 5 || r.Down != 7 ||
			!strings.HasPrefix(r.Reason, ReasonClientClosed) {
			t.Errorf("a client that closes: got %+v", r)
		}
		if r.Client != c.LocalAddr().(*net.TCPAddr).AddrPort() || r.Connect <= 0 || r.Duration < r.Connect ||
			r.Ended.IsZero() {
			t.Errorf("got %+v", r)
		}

		c = dialTCP(t, addr)
		c.Write([]byte("reset"))
		io.Copy(io.Discard, c)
		c.Close()
		if r = next(); !strings.HasPrefix(r.Reason, ReasonEndpointFailed) || r.Up != 5 {
			t.Errorf("an instance that resets: got %+v", r)
		}

		h.endpoints("s")
		// The reset may come before Dial returns.
		if refused, err := net.Dial("tcp", addr.String()); err == nil {
			io.Copy(io.Discard, refused)
			refused.Close()
		}
		if r = next(); r.Reason != ReasonUnserved || r.Endpoint.ID != "" || r.Connect != 0 {
			t.Errorf("no instance: got %+v", r)
		}

		h.endpoints("s", server)
		c = dialTCP(t, addr)
		c.Write([]byte("12345"))
		io.ReadFull(c, make([]byte, 7))
		h.Close()
		if r = next(); r.Reason != ReasonCut {
			t.Errorf("a shutdown: got %+v", r)
		}
	})
}

// The debug log says how a connection ended in words, also as JSON.
func TestDebugLogSaysHowAConnectionEnds(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, JSONFormat: true, Output: log})
		addr := h.serve(Service{}, tcpServer(t, func(c testConn) {
			c.Read(make([]byte, 1))
			c.Write([]byte("x"))
			c.SetLinger(0)
		}))
		c := dialTCP(t, addr)
		c.Write([]byte("x"))
		io.Copy(io.Discard, c)
		c.Close()
		h.endpoints("s")
		if refused, err := net.Dial("tcp", addr.String()); err == nil {
			io.Copy(io.Discard, refused)
			refused.Close()
		}
		for _, want := range []string{`"error":"connection reset by peer"`, `"reason":"endpoint failed"`,
			`"reason":"unserved"`, `"refused":"no_endpoints"`} {
			testproc.Await(t, want, func() bool { return strings.Contains(log.String(), want) })
		}
	})
}

// Each UDP session makes a record, with its bytes and the reason of its end.
func TestAccessIsToldOfEachSession(t *testing.T) {
	tests := []struct {
		reason   string
		service  Service
		end      func(t *testing.T, h *house, addr netip.AddrPort, c *net.UDPConn) // ends the session of c
		up, down int64                                                             // datagrams
	}{
		{reason: ReasonAnswered, service: Service{Responses: 1}, up: 1, down: 1},
		{reason: ReasonIdle, service: Service{IdleTimeout: 50 * time.Millisecond}, up: 1, down: 1},
		{reason: ReasonEvicted, service: Service{MaxSessions: 1}, up: 1, down: 1,
			end: func(t *testing.T, _ *house, addr netip.AddrPort, _ *net.UDPConn) {
				query(t, dialUDP(t, addr), "x")
			}},
		{reason: ReasonEndpointLeft, up: 1, down: 1,
			end: func(t *testing.T, h *house, _ netip.AddrPort, c *net.UDPConn) {
				h.endpoints("s", udpServer(t, says("other")))
				c.Write([]byte("again"))
			}},
		{reason: ReasonReplaced, up: 1, down: 1,
			end: func(t *testing.T, h *house, addr netip.AddrPort, c *net.UDPConn) {
				h.endpoints("t", udpServer(t, says("other")))
				if err := h.Apply([]Service{{Name: "t", Protocol: UDP, Listen: []netip.AddrPort{addr}}}); err != nil {
					t.Fatal(err)
				}
				query(t, c, "again")
			}},
		{reason: ReasonDrained, up: 1, down: 1, end: func(t *testing.T, h *house, _ netip.AddrPort, _ *net.UDPConn) {
			if err := h.Apply(nil); err != nil {
				t.Fatal(err)
			}
		}},
		{reason: ReasonCut, up: 1, down: 1,
			end: func(_ *testing.T, h *house, _ netip.AddrPort, _ *net.UDPConn) {
				h.Close()
			}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				next := h.records()
				server := udpServer(t, says("a"))
				tt.service.Protocol = UDP
				tt.service.Listen = []netip.AddrPort{deadUDP(t)} // a fixed port, which another service can take over
				addr := h.serve(tt.service, server)
				c := dialUDP(t, addr)
				if got := askOnce(t, c, "12345"); got != "a:12345" {
					t.Fatalf("got %q", got)
				}
				if tt.end != nil {
					tt.end(t, h, addr, c)
				}
				r := next()
				if r.Reason != tt.reason || r.Service != "s" || r.Protocol != UDP || r.Endpoint.Addr != server ||
					r.Client != c.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("got %+v", r)
				}
				if r.DatagramsUp != tt.up || r.DatagramsDown != tt.down || r.Up != 5*tt.up || r.Down != 7*tt.down ||
					r.Duration <= 0 || r.Ended.IsZero() {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

func TestAccessIsToldOfARefusedSession(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		dead := deadUDP(t)
		c := dialUDP(t, h.serve(Service{Protocol: UDP}, dead))
		for {
			c.Write([]byte("x")) // the second datagram shows the refusal
			if s := h.stats(); s.Sessions > 1 {
				break
			}
		}
		if r := next(); r.Reason != ReasonEndpointRefused || r.Endpoint.Addr != dead || r.DatagramsUp == 0 ||
			r.DatagramsDown != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestAccessIsToldOfSessionsWithoutAnswers(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		next := h.records()
		addr := h.serve(Service{Protocol: UDP, Responses: -1, Requests: 2, IdleTimeout: 100 * time.Millisecond},
			udpServer(t, says("a")))
		c := dialUDP(t, addr)
		c.Write([]byte("12345"))
		c.Write([]byte("67"))
		r := next()
		if r.Reason != ReasonSent || r.DatagramsUp != 2 || r.Up != 7 || r.DatagramsDown != 0 || r.Down != 0 ||
			r.Protocol != UDP {
			t.Errorf("got %+v", r)
		}
	})
}

// The receiver of records can change at any time. While there is none, no records are made.
func TestAccessCanBeSwitched(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo))
		told := make(chan AccessRecord, 10)
		one := func(text string) {
			c := dialTCP(t, addr)
			exchange(t, c, text)
			c.Close()
			eventually(t, equals("connections", func() int64 { return h.stats().ConnectionsActive }, 0))
		}
		one("unseen")
		h.SetAccess(func(r AccessRecord) { told <- r })
		one("seen")
		h.SetAccess(nil)
		one("unseen again")
		if r := <-told; r.Up != 4 || len(told) != 0 {
			t.Errorf("got %+v, and %d more", r, len(told))
		}
	})
}
