package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// list returns all connections that q wants, page by page. list calls between after each page but the last.
func (h *house) list(q ConnectionQuery, between func()) (all []Connection) {
	h.Helper()
	for {
		page, next, err := h.Connections(h.Context(), q)
		if err != nil {
			h.Fatal(err)
		}
		if len(page) > q.Limit {
			h.Fatalf("a page has %d connections, want at most %d", len(page), q.Limit)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.After = next
		between()
	}
}

func (h *house) all() []Connection {
	h.Helper()
	return h.list(ConnectionQuery{Limit: 100}, func() {})
}

func localOfConn(c net.Conn) netip.AddrPort {
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

func TestConnectionsTellOfTCP(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		from := make(chan netip.AddrPort, 1)
		server := tcpServer(t, func(c testConn) {
			from <- netip.MustParseAddrPort(c.RemoteAddr().String())
			echo(c)
		})
		addr := h.serve(Service{}, server)
		c := dialTCP(t, addr)
		exchange(t, c, "12345")
		eventually(t, func() error {
			all := h.all()
			if len(all) != 1 || all[0].Up != 5 || all[0].Down != 5 { // the bytes may be counted after they are sent
				return fmt.Errorf("got %+v", all)
			}
			return nil
		})
		got := h.all()[0]
		if got.Age <= 0 || got.Idle < 0 || got.Idle > got.Age {
			t.Errorf("got %v old, idle for %v", got.Age, got.Idle)
		}
		got.Age, got.Idle = 0, 0
		want := Connection{
			Service: "s", Client: localOfConn(c), Listener: lb.Addr{AddrPort: addr},
			Endpoint: lb.Endpoint{ID: server.String(), Addr: server, Weight: 1}, From: <-from,
			State: ConnectionOpen, Up: 5, Down: 5,
		}
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		c.Close()
		eventually(t, equals("connections", func() int { return len(h.all()) }, 0))
	})
}

func TestConnectionsTellOfAHalfClosedOne(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		goOn := make(chan struct{})
		defer close(goOn)
		c := dialTCP(t, h.serve(Service{}, tcpServer(t, func(testConn) { <-goOn })))
		c.CloseWrite()
		eventually(t, func() error {
			if all := h.all(); len(all) != 1 || all[0].State != ConnectionHalfClosed {
				return fmt.Errorf("got %+v", all)
			}
			return nil
		})
	})
}

func TestConnectionsTellOfOneThatWaits(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxConnections: 1, MaxQueue: 10, QueueTimeout: time.Minute})
		addr := h.serve(Service{}, tcpServer(t, echo))
		exchange(t, dialTCP(t, addr), "first")
		second := dialTCP(t, addr)
		eventually(t, func() error {
			for _, one := range h.all() {
				if one.Client == localOfConn(second) && one.State == ConnectionWaiting && one.Endpoint.ID == "" &&
					!one.From.IsValid() {
					return nil
				}
			}
			return fmt.Errorf("got %+v", h.all())
		})
	})
}

func TestConnectionsTellOfSessions(t *testing.T) {
	for _, responses := range []int{0, -1} {
		t.Run(fmt.Sprint(responses), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				server := udpServer(t, echoUDP)
				addr := h.serve(Service{Protocol: UDP, Responses: responses}, server)
				c := dialUDP(t, addr)
				c.Write([]byte("12345"))
				want := Connection{
					Service: "s", Protocol: UDP, Client: localOfConn(c), Listener: lb.Addr{AddrPort: addr},
					Endpoint: lb.Endpoint{ID: server.String(), Addr: server, Weight: 1},
					State:    ConnectionOpen, Up: 5, DatagramsUp: 1,
				}
				if responses == 0 {
					want.Down, want.DatagramsDown = 5, 1
				}
				eventually(t, func() error {
					all := h.all()
					if len(all) != 1 {
						return fmt.Errorf("got %+v", all)
					}
					got := all[0]
					if got.Age <= 0 || got.Idle > got.Age || !got.From.IsValid() {
						return fmt.Errorf("got %+v", got)
					}
					got.Age, got.Idle, got.From = 0, 0, netip.AddrPort{}
					if responses < 0 { // each engine decides whether discarded answers count
						got.Down, got.DatagramsDown = 0, 0
					}
					if got != want {
						return fmt.Errorf("got  %+v\nwant %+v", got, want)
					}
					return nil
				})
			})
		})
	}
}

func TestConnectionsAreFiltered(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		one, two := tcpServer(t, echo), tcpServer(t, echo)
		h.start()
		h.endpoints("one", one)
		h.endpoints("two", one, two)
		if err := h.Apply([]Service{{Name: "one", Listen: []netip.AddrPort{loopback}},
			{Name: "two", Listen: []netip.AddrPort{loopback}}}); err != nil {
			t.Fatal(err)
		}
		for _, l := range h.Listeners() {
			for range 4 {
				exchange(t, dialTCP(t, l.Addr.AddrPort), "x")
			}
		}
		for _, tt := range []struct {
			query ConnectionQuery
			want  int
		}{
			{ConnectionQuery{}, 8},
			{ConnectionQuery{Service: "one"}, 4},
			{ConnectionQuery{Service: "two", Endpoint: two.String()}, 2},
			{ConnectionQuery{Endpoint: one.String()}, 6},
			{ConnectionQuery{Service: "three"}, 0},
			{ConnectionQuery{Endpoint: "x"}, 0},
		} {
			tt.query.Limit = 3
			if got := h.list(tt.query, func() {}); len(got) != tt.want {
				t.Errorf("%+v: got %d, want %d", tt.query, len(got), tt.want)
			}
		}
	})
}

// A connection that is open while all pages are read is listed exactly once, whatever other connections begin and end.
func TestConnectionsPagesAreStable(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo))
		stay := map[netip.AddrPort]int{}
		var leave []testConn
		for i := range 600 {
			c := dialTCP(t, addr)
			exchange(t, c, "x")
			if i%3 == 0 {
				stay[localOfConn(c)] = 0
			} else {
				leave = append(leave, c)
			}
		}
		for _, one := range h.list(ConnectionQuery{Limit: 20}, func() {
			for range min(len(leave), 10) {
				leave[0].Close()
				leave = leave[1:]
				exchange(t, dialTCP(t, addr), "new")
			}
		}) {
			if n, stays := stay[one.Client]; stays {
				stay[one.Client] = n + 1
			}
		}
		for client, n := range stay {
			if n != 1 {
				t.Errorf("%v was seen %d times", client, n)
			}
		}
	})
}

func TestConnectionsNeedAPlaceToGoOnFrom(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.serve(Service{}, tcpServer(t, echo))
		for _, after := range []string{"x", "1", "-1-2", "0-1x", "0-99999999999999999999", " 0-1"} {
			if _, _, err := h.Connections(t.Context(), ConnectionQuery{After: after, Limit: 1}); err == nil ||
				!strings.Contains(err.Error(), after) {
				t.Errorf("%q: got %v", after, err)
			}
		}
		for _, after := range []string{"99-0", "0-2000000000"} { // positions of another process, or of a longer list
			if page, next, err := h.Connections(t.Context(), ConnectionQuery{After: after, Limit: 1}); err != nil ||
				len(page) > 0 || next != "" {
				t.Errorf("%q: got %v, %q, %v", after, page, next, err)
			}
		}
	})
}
