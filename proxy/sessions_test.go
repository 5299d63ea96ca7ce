package proxy

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
)

func TestSessionIdle(t *testing.T) {
	for _, tt := range []struct {
		name             string
		of               Service
		serves, draining time.Duration
	}{
		{"by default", Service{Protocol: UDP}, time.Minute, drainQuiet},
		{"short", Service{Protocol: UDP, IdleTimeout: drainQuiet / 2}, drainQuiet / 2, drainQuiet / 2},
		{"never is not for sessions", Service{Protocol: UDP, IdleTimeout: -1}, time.Minute, drainQuiet},
	} {
		if a, b := tt.of.sessionIdle(false), tt.of.sessionIdle(true); a != tt.serves || b != tt.draining {
			t.Errorf("%s: got %v and %v, want %v and %v", tt.name, a, b, tt.serves, tt.draining)
		}
	}
}

func TestSilentSession(t *testing.T) {
	for _, tt := range []struct {
		refused, draining bool
		want              endReason
	}{{false, false, endIdle}, {false, true, endDrained}, {true, false, endRefused}, {true, true, endRefused}} {
		if got := silentSession(tt.refused, tt.draining); got != tt.want {
			t.Errorf("refused %v, draining %v: got %v, want %v", tt.refused, tt.draining, got, tt.want)
		}
	}
}

func TestSessionLimits(t *testing.T) {
	for _, tt := range []struct {
		name              string
		of                Service
		requests, answers int64
		full, answered    bool
	}{
		{"nothing known", Service{}, 100, 100, false, false},
		{"before the last request", Service{Requests: 3}, 2, 9, false, false},
		{"the last request", Service{Requests: 3}, 3, 0, true, false},
		{"requests that were joined", Service{Requests: 3}, 5, 0, true, false},
		{"an answer is missing", Service{Responses: 2}, 3, 5, false, false},
		{"the last answer", Service{Responses: 2}, 3, 6, false, true},
		{"more answers than are due", Service{Responses: 2}, 3, 9, false, true},
		{"one way", Service{Responses: -1}, 3, 9, false, false},
	} {
		full, answered := tt.of.isFull(tt.requests), tt.of.isAnswered(tt.requests, tt.answers)
		if full != tt.full || answered != tt.answered {
			t.Errorf("%s: got %v, %v, want %v, %v", tt.name, full, answered, tt.full, tt.answered)
		}
	}
}

// sessionService returns a service s with endpoints of these names.
func sessionService(spec Service, names ...string) (*service, *lb.RoundRobin) {
	balancer, u := lb.NewRoundRobin(), lb.Endpoints{Service: "s"}
	for i, name := range names {
		u.Endpoints = append(u.Endpoints, lb.Endpoint{
			ID: name, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 9),
		})
	}
	balancer.OnUpdate([]lb.Endpoints{u})
	spec.Name, spec.Protocol = "s", UDP
	s := newService(&spec, balancer, hclog.NewNullLogger(), 1)
	s.access = &accessTap{}
	return s, balancer
}

func TestReplaces(t *testing.T) {
	s, balancer := sessionService(Service{}, "a", "b")
	other, _ := sessionService(Service{}, "a")
	stays, err := s.pick(sessionClient, lb.Tried{})
	if err != nil {
		t.Fatal(err)
	}
	left, err := s.pick(sessionClient, lb.Tried{})
	if err != nil {
		t.Fatal(err)
	}
	balancer.OnUpdate([]lb.Endpoints{{Service: "s", Endpoints: []lb.Endpoint{stays.Endpoint}}})
	for _, tt := range []struct {
		name    string
		of      *service
		m       *lb.Member
		refused bool
		want    endReason
	}{
		{"goes on", s, stays, false, notEnded},
		{"another service", other, stays, false, endReplaced},
		{"the endpoint has left", s, left, false, endLeft},
		{"it refused first", other, left, true, endRefused},
		{"the service changed first", other, left, false, endReplaced},
	} {
		if got := s.replaces(tt.of, tt.m, tt.refused); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

var sessionClient = netip.MustParseAddrPort("127.0.0.1:40000")

// If there is no session, beginSession gives back what it has taken. beginSession tries each endpoint once, and counts
// one refusal if no endpoint serves the client.
func TestBeginSession(t *testing.T) {
	for _, tt := range []struct {
		name      string
		endpoints []string
		hops      uint8
		fails     []string // endpoints that cannot be connected
		leave     bool     // they leave after they fail
		full      bool     // takeRoom fails
		before    []string // tried before
		ok        bool
		dialled   int
		refused   []Refusal
	}{
		{name: "at once", endpoints: []string{"a", "b"}, ok: true, dialled: 1},
		{name: "with another one", endpoints: []string{"a", "b"}, fails: []string{"a"}, ok: true, dialled: 0},
		{name: "none", refused: []Refusal{RefusedNoEndpoints}},
		{name: "all fail", endpoints: []string{"a", "b"}, fails: []string{"a", "b"}, dialled: maxDials,
			refused: []Refusal{RefusedUnreached}},
		{name: "all fail and leave", endpoints: []string{"a"}, fails: []string{"a"}, leave: true, dialled: 1,
			refused: []Refusal{RefusedUnreached}},
		{name: "one that refused is tried again", endpoints: []string{"a"}, before: []string{"a"}, ok: true,
			dialled: 1},
		{name: "no room", endpoints: []string{"a"}, full: true, refused: []Refusal{RefusedDescriptors}},
		{name: "no hops left", endpoints: []string{"a"}, hops: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, balancer := sessionService(Service{MaxPerClient: 1}, tt.endpoints...)
			room, dialled := 0, 0
			var tried lb.Tried
			for _, id := range tt.before {
				tried.Add(id)
			}
			counted, ok := s.beginSession(sessionClient, tt.hops, &tried, sessionOpener{
				takeRoom: func() bool { room++; return !tt.full },
				giveRoom: func() { room-- },
				attach: func(m *lb.Member) error {
					if dialled++; slices.Contains(tt.fails, m.ID) {
						if tt.leave {
							balancer.OnUpdate([]lb.Endpoints{{Service: "s"}})
						}
						return errors.New("unreachable")
					}
					return nil
				},
			})
			if ok != tt.ok || counted != tt.ok {
				t.Fatalf("got %v, counted %v", ok, counted)
			}
			if tt.dialled > 0 && dialled != tt.dialled {
				t.Errorf("%d endpoints were tried, want %d", dialled, tt.dialled)
			}
			if want := map[bool]int{true: 1, false: 0}[tt.ok]; !tt.full && room != want {
				t.Errorf("room for %d sessions is taken, want %d", room, want)
			}
			if _, more := s.countClient(sessionClient); more == tt.ok {
				t.Errorf("the client is counted: %v", !more)
			}
			for i := range refusals {
				want := int64(0)
				if slices.Contains(tt.refused, Refusal(i)) {
					want = 1
				}
				if got := s.at(0).refused[i].Load(); got != want {
					t.Errorf("refused as %v %d times, want %d", Refusal(i), got, want)
				}
			}
		})
	}
}
