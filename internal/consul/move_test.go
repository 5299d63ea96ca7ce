package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A server is a Consul server that a test can kill, restart at the same address, and give faults.
type server struct {
	addr    string
	name    string
	domain  string       // trust domain
	asked   atomic.Int64 // requests
	open    atomic.Int64 // connections
	status  atomic.Int64 // status of all answers; zero: 200
	text    atomic.Value // body with status
	hanging chan struct{}

	mu   sync.Mutex
	http *httptest.Server
}

func startServer(t *testing.T, name, addr string) *server {
	t.Helper()
	s := &server{addr: addr, name: name, domain: "one", hanging: make(chan struct{})}
	s.text.Store("")
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", s.addr)
	must(t, err)
	s.addr = l.Addr().String()
	server := httptest.NewUnstartedServer(s)
	_ = server.Listener.Close()
	server.Listener = l
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.open.Add(1)
		case http.StateClosed:
			s.open.Add(-1)
		}
	}
	server.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http = server
}

func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http.CloseClientConnections()
	s.http.Close()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if code := s.status.Load(); code != 0 {
		http.Error(w, s.text.Load().(string), int(code))
		return
	}
	w.Header().Set("X-Consul-Index", "7")
	switch {
	case r.URL.Path == "/hang":
		select {
		case <-s.hanging:
		case <-r.Context().Done():
		}
	case r.URL.Path == "/v1/agent/connect/ca/roots":
		fmt.Fprintf(w, `{"TrustDomain": %q}`, s.domain)
	case r.URL.Path == "/v1/catalog/datacenters":
		_, _ = io.WriteString(w, `["dc1"]`)
	default:
		fmt.Fprintf(w, "[%q]", s.name)
	}
}

// run runs c until the test ends.
func run(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// poll waits until f returns nil.
func poll(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, testproc.Poll(ctx, f))
}

// who asks for the name of the server that answers.
func who(c *Client) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a, err := c.Query(ctx, Request{Path: "/"})
	if err != nil {
		return err.Error()
	}
	defer a.Free()
	return string(a.Body)
}

// awaitAt waits until the server called name answers the queries of c.
func awaitAt(t *testing.T, c *Client, name string) {
	t.Helper()
	poll(t, func() error {
		if got := who(c); got != fmt.Sprintf("[%q]", name) {
			return errors.New(got)
		}
		return nil
	})
}

// A killed agent makes the client move. An index of the former agent is then refused before it is sent. The client does
// not go back by itself, but when it is asked to.
func TestKilledAgentIsLeft(t *testing.T) {
	t.Parallel()
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
	moves := make(chan Move, 10)
	defer c.OnMove(func(m Move) { moves <- m })()
	c.begun.Store(true) // without the choice at the start
	run(t, c)
	awaitAt(t, c, "a")
	first, err := c.Query(t.Context(), Request{Path: "/"})
	must(t, err)
	first.Free()
	moved := c.Moved()

	a.kill()
	awaitAt(t, c, "b")
	m := <-moves
	if m.From != "http://"+a.addr || m.To != "http://"+b.addr || !strings.Contains(m.Why, "refused") {
		t.Errorf("got %+v", m)
	}
	<-moved
	s := c.Standing()
	if s.Address != m.To || s.From != m.From || s.Moves != 1 || s.Why != m.Why || len(s.Addresses) != 2 {
		t.Errorf("got %+v", s)
	}
	asked := b.asked.Load()
	q := Request{Path: "/", Index: first.Index, Site: first.Site, Wait: time.Second}
	if _, err := c.Query(t.Context(), q); !errors.Is(err, ErrMoved) {
		t.Errorf("with an index of the former agent: %v, want ErrMoved", err)
	}
	if n := b.asked.Load(); n != asked {
		t.Error("the index of the former agent was sent")
	}
	q.Site = c.Site()
	again, err := c.Query(t.Context(), q)
	must(t, err)
	again.Free()

	a.start(t)
	if got := who(c); got != `["b"]` {
		t.Errorf("%s answers before the client is asked to go back", got)
	}
	if !c.Settle(t.Context(), "reload") || who(c) != `["a"]` {
		t.Errorf("%s answers after Settle", who(c))
	}
	if why := c.Standing().Why; why != "reload" {
		t.Errorf("reason %q", why)
	}
	if c.Settle(t.Context(), "reload") {
		t.Error("moved from the first address, which answers")
	}
}

// Leave is for a hanging agent, which accepts connections: its user knows that it does not answer.
func TestHangingAgentIsLeft(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // never accepts, so it looks like a stopped process
	must(t, err)
	defer l.Close()
	b := startServer(t, "b", "127.0.0.1:0")
	c := startClient(t, Options{Address: l.Addr().String(), More: []string{b.addr}})
	c.begun.Store(true) // without the choice at the start
	run(t, c)
	c.Leave(errors.New("silent"))
	awaitAt(t, c, "b")
	if why := c.Standing().Why; why != "silent" {
		t.Errorf("reason %q", why)
	}
}

// At the start, the first address that answers is used.
func TestStartSkipsDeadAddresses(t *testing.T) {
	t.Parallel()
	dead := startServer(t, "dead", "127.0.0.1:0")
	dead.kill()
	b, d := startServer(t, "b", "127.0.0.1:0"), startServer(t, "d", "127.0.0.1:0")
	c := startClient(t, Options{Address: dead.addr, More: []string{b.addr, d.addr}})
	run(t, c)
	awaitAt(t, c, "b")
	if why := c.Standing().Why; !strings.Contains(why, "at the start") || !strings.Contains(why, dead.addr) {
		t.Errorf("reason %q", why)
	}
}

// Only an address that cannot answer any query is left. After each of these answers the next doubt, of a killed server,
// must still move the client.
func TestWhatIsNoReasonToMove(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code int
		text string
		move bool
	}{
		{403, "Permission denied", false},
		{429, "rate limit exceeded", false},
		{429, "Your IP is issuing too many concurrent connections", false},
		{400, "Invalid query parameter", false},
		{404, "", false},
		{500, "ACL not found", false},
		{500, "No cluster leader", true},
		{503, "rpc error", true},
		{500, "No known Consul servers", true},
	} {
		t.Run(fmt.Sprint(tt.code, tt.text), func(t *testing.T) {
			t.Parallel()
			a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
			c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
			a.text.Store(tt.text)
			a.status.Store(int64(tt.code))
			_, err := c.Query(t.Context(), Request{Path: "/"})
			wantStatus(t, "query", err, tt.code)
			c.raise(doubt{at: c.at.Load(), err: err})
			want := map[bool]outcome{true: hasMoved, false: answers}[tt.move]
			if got := c.reconsider(t.Context(), <-c.doubts); got != want {
				t.Errorf("outcome %d, want %d", got, want)
			}
			if moved := c.Site() == 1; moved != tt.move {
				t.Errorf("moved: %v, want %v", moved, tt.move)
			}
		})
	}
}

// An election, which all servers feel, moves nobody.
func TestElectionMovesNobody(t *testing.T) {
	t.Parallel()
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	for _, s := range []*server{a, b} {
		s.text.Store("No cluster leader")
		s.status.Store(500)
	}
	c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
	if got := c.reconsider(t.Context(), doubt{at: c.at.Load(), err: errors.New("lost")}); got != isLost {
		t.Errorf("outcome %d, want %d", got, isLost)
	}
	if c.Site() != 0 {
		t.Error("moved")
	}
}

// Requests that their caller has ended say nothing about the agent. Those that took too long do.
func TestEndedRequestsRaiseNoDoubt(t *testing.T) {
	t.Parallel()
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	for name, tt := range map[string]struct {
		cause error
		want  int
	}{
		"ended":   {errors.New("no longer wanted"), 0},
		"timeout": {&TimeoutError{time.Second}, 1},
	} {
		c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(tt.cause) })
		if err := c.Call(ctx, http.MethodGet, "/hang", nil, nil, nil); err == nil {
			t.Errorf("%s: answered", name)
		}
		if n := len(c.doubts); n != tt.want {
			t.Errorf("%s: %d doubts, want %d", name, n, tt.want)
		}
	}
}

// The client does not move to another cluster by itself, because the services there are others. An operator can ask for
// it, for example after all servers were replaced.
func TestAnotherClusterIsNotUsed(t *testing.T) {
	t.Parallel()
	var log testproc.Log
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	b.domain = "two"
	c := startClient(t, Options{Address: a.addr, More: []string{b.addr}, Logger: logger(&log)})
	must(t, c.Ping(t.Context()))
	c.learn(t.Context())
	a.kill()
	for range 2 {
		if got := c.reconsider(t.Context(), doubt{at: c.at.Load(), err: errors.New("lost")}); got != isLost {
			t.Errorf("outcome %d, want %d", got, isLost)
		}
	}
	wantOnce(t, &log, "belongs to another cluster")
	if c.Site() != 0 {
		t.Fatal("moved to another cluster")
	}
	if !c.Settle(t.Context(), "reload") || who(c) != `["b"]` {
		t.Errorf("%s answers after an operator has asked", who(c))
	}
	c.learn(t.Context())
	if c.cluster.TrustDomain != "two" {
		t.Errorf("in the cluster %+v", c.cluster)
	}
}

// All connections of a client lead to one IP address of a host name, until the client moves.
func TestNameWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	one := startServer(t, "one", "127.0.0.1:0")
	_, port, err := net.SplitHostPort(one.addr)
	must(t, err)
	two := startServer(t, "two", "127.0.0.2:"+port)
	c := startClient(t, Options{Address: "consul.test:" + port})
	var mu sync.Mutex
	known := []string{"127.0.0.1", "127.0.0.2"}
	c.lookup = func(_ context.Context, host string) (all []netip.Addr, _ error) {
		mu.Lock()
		defer mu.Unlock()
		if host != "consul.test" {
			return nil, fmt.Errorf("looked up %q", host)
		}
		for _, text := range known {
			all = append(all, netip.MustParseAddr(text))
		}
		return all, nil
	}
	run(t, c)
	awaitAt(t, c, "one")
	if at := c.Standing().Address; !strings.Contains(at, "consul.test") || !strings.Contains(at, "127.0.0.1") {
		t.Errorf("at %s", at)
	}
	c.CloseIdle()
	for range 5 {
		if got := who(c); got != `["one"]` {
			t.Errorf("a new connection leads to %s", got)
		}
		c.CloseIdle()
	}
	one.kill()
	awaitAt(t, c, "two")

	// The name leads elsewhere now. The client notices at its next connection.
	one.start(t)
	mu.Lock()
	known = known[:1]
	mu.Unlock()
	c.CloseIdle()
	awaitAt(t, c, "one")
	if why := c.Standing().Why; !strings.Contains(why, "no longer an address of consul.test") {
		t.Errorf("reason %q", why)
	}
	_ = two
}

// A client with one IP address has nowhere to go, so it must not cost a question.
func TestSingleAddressIsNeverTried(t *testing.T) {
	t.Parallel()
	a := startServer(t, "a", "127.0.0.1:0")
	a.status.Store(500)
	c := startClient(t, Options{Address: a.addr})
	c.Run(t.Context()) // returns
	_, err := c.Query(t.Context(), Request{Path: "/"})
	wantStatus(t, "query", err, 500)
	if n := a.asked.Load(); n != 1 || len(c.doubts) != 0 || c.Settle(t.Context(), "reload") {
		t.Errorf("%d requests, %d doubts", n, len(c.doubts))
	}
}

// Stays that are short become longer, so that a client whose addresses fail in turn does not move all the time.
func TestShortStaysGrow(t *testing.T) {
	t.Parallel()
	c := startClient(t, Options{Address: "127.0.0.1:1", More: []string{"127.0.0.1:2"}})
	var stays []time.Duration
	for i := range 8 {
		c.moveTo(c.newSite(c.agents[i%2], nil), "test")
		stays = append(stays, c.stayUntil.Sub(c.at.Load().since))
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if stays[i] != want*time.Second {
			t.Errorf("stay %d lasts %v at least, want %v", i, stays[i], want*time.Second)
		}
	}
	c.at.Load().since = time.Now().Add(-2 * calm)
	c.moveTo(c.newSite(c.agents[0], nil), "test")
	if got := c.stayUntil.Sub(c.at.Load().since); got != firstStay {
		t.Errorf("after a long stay: %v, want %v", got, firstStay)
	}
}

// Settle keeps no connection to an address that it does not choose.
func TestSettleKeepsNoConnection(t *testing.T) {
	t.Parallel()
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	a.domain = "two"
	c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
	c.moveTo(c.newSite(c.agents[1], nil), "test")
	must(t, c.Ping(t.Context()))
	c.learn(t.Context())
	if c.Settle(t.Context(), "reload") || a.asked.Load() == 0 {
		t.Errorf("%s answers, after %d questions to the other cluster", who(c), a.asked.Load())
	}
	poll(t, func() error {
		if n := a.open.Load(); n > 0 {
			return fmt.Errorf("%d connections to the address that was not chosen", n)
		}
		return nil
	})
}

// A reload goes back to the first address at once, even if the client waits for the end of its stay before it moves.
func TestReloadDoesNotWaitForTheStay(t *testing.T) {
	t.Parallel()
	a, b := startServer(t, "a", "127.0.0.1:0"), startServer(t, "b", "127.0.0.1:0")
	c := startClient(t, Options{Address: a.addr, More: []string{b.addr}})
	c.begun.Store(true) // without the choice at the start
	c.moveTo(c.newSite(c.agents[1], nil), "test")
	c.stayUntil = time.Now().Add(time.Hour)
	run(t, c)
	c.Leave(errors.New("silent"))
	poll(t, func() error {
		if len(c.doubts) > 0 {
			return errors.New("the doubt was not received")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if !c.Settle(ctx, "reload") || who(c) != `["a"]` {
		t.Errorf("%s answers after a reload", who(c))
	}
}

// A query's own namespace or partition has precedence over the client's.
func TestQueryHasItsOwnNamespace(t *testing.T) {
	seen := make(chan string, 1)
	c := serve(t, Options{Namespace: "team", Partition: "part"}, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL.RawQuery
		answer("7", "[]")(w, r)
	})
	a, err := c.Query(t.Context(), Request{Path: "/a", Values: url.Values{"ns": {"other"}}})
	must(t, err)
	a.Free()
	if got, want := <-seen, "ns=other&partition=part"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
