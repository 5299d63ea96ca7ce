package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// unhurried has times that are so long that no connection ends in a test.
var unhurried = times{header: time.Hour, request: time.Hour, idle: time.Hour, stalled: time.Hour, turn: time.Minute}

// A caller is a connection to the API on which a test writes HTTP itself.
type caller struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

// call connects to the TCP listener or to the Unix socket. If from is not empty, it is the source IP address.
func (h *house) call(network, from string) *caller {
	h.Helper()
	d, to := net.Dialer{}, h.tcp
	if network == "unix" {
		to = h.socket.Addr().String()
	}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.DialContext(h.Context(), network, to)
	if err != nil {
		h.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // only a failing test reaches the deadline
	h.Cleanup(func() { _ = conn.Close() })
	return &caller{conn, h.T, bufio.NewReader(conn)}
}

// say sends text, which may be part of a request.
func (c *caller) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// code reads the next answer and returns its status code.
func (c *caller) code() int {
	c.t.Helper()
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		c.t.Fatal(err)
	}
	return answer.StatusCode
}

// get requests a path with the right token, and returns the status code.
func (c *caller) get(path string) int {
	c.t.Helper()
	c.say("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer right\r\n\r\n")
	return c.code()
}

// closed waits until the server has closed the connection.
func (c *caller) closed() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.in)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Error("the connection is still open")
	}
}

// evicted waits until this many connections have been evicted, and n are open.
func (h *house) evicted(want int64, n int) {
	h.Helper()
	var open int
	var got int64
	h.eventually(fmt.Sprintf("%d evicted, %d open", want, n), func() bool {
		open, got, _ = h.slots.counts()
		return got >= want && open == n
	})
	if got != want {
		h.Errorf("%d connections have been evicted, want %d", got, want)
	}
}

// settled waits until n of the open connections are in a phase, and have at least the given standing, if any. A client
// may have its answer before net/http reports the new state.
func (h *house) settled(p phase, n int, least ...standing) {
	h.Helper()
	h.eventually(fmt.Sprintf("%d connections in phase %d", n, p), func() bool {
		h.slots.mu.Lock()
		defer h.slots.mu.Unlock()
		got := 0
		for c := range h.slots.open {
			if c.phase == p && (least == nil || c.standing >= least[0]) {
				got++
			}
		}
		return got == n
	})
}

func tokenOf(t *testing.T) Access {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Access{TokenFile: file}
}

// A new connection is served at once, and the connection that has waited longest is closed for it.
func TestConnectionsThatWaitMakeRoom(t *testing.T) {
	const most, more = 8, 5
	const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for _, tt := range []struct {
		name, network string
		wait          func(c *caller)
	}{
		{"silent", "tcp", func(*caller) {}},
		{"silent, over the socket", "unix", func(*caller) {}},
		{"half a header", "tcp", func(c *caller) { c.say(request[:30]) }},
		{"keep-alive", "tcp", func(c *caller) { c.say(request); c.code() }},
		{"keep-alive, over the socket", "unix", func(c *caller) { c.say(request); c.code() }},
		{"keep-alive, then half a header", "tcp", func(c *caller) { c.say(request); c.code(); c.say(request[:30]) }},
		{"the wrong token", "tcp", func(c *caller) {
			c.say("GET /v1/watch HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n")
			if code := c.code(); code != 401 {
				t.Errorf("got %d, want 401", code)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := serveTo(t, tokenOf(t), Options{MaxConnections: most, times: unhurried}, "web")
			var all []*caller
			for range most + more {
				c := h.call(tt.network, "")
				tt.wait(c)
				h.settled(answering, 0)
				all = append(all, c)
			}
			if code := h.call(tt.network, "").get("/v1/status"); code != 200 {
				t.Errorf("got %d, want 200", code)
			}
			for _, c := range all[:more+1] {
				c.closed()
			}
			h.evicted(more+1, most)
		})
	}
}

// A client that keeps its connection between requests reconnects after an eviction, without an error.
func TestKeepAliveClientsConnectAgain(t *testing.T) {
	const most = 4
	h := serve(t, Options{MaxConnections: most, times: unhurried}, "web")
	for round := range int64(3) {
		h.get("/v1/status", nil)
		h.settled(waiting, min(most, 1+int(round)*most))
		for range most {
			h.call("unix", "")
		}
		h.evicted(1+round*(most+1), most)
	}
}

// A connection that has shown the token keeps its slot while there are others without the token.
func TestStrangersMakeRoomBeforeOperators(t *testing.T) {
	const most = 8
	h := serveTo(t, tokenOf(t), Options{MaxConnections: most, times: unhurried}, "web")
	monitor := h.call("tcp", "")
	if code := monitor.get("/v1/status"); code != 200 {
		t.Fatalf("got %d, want 200", code)
	}
	h.settled(waiting, 1)
	for range 2 * most {
		c := h.call("tcp", "")
		c.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if code := c.code(); code != 200 {
			t.Fatalf("got %d, want 200", code)
		}
	}
	if code := h.call("tcp", "").get("/v1/status"); code != 200 {
		t.Errorf("another operator: got %d, want 200", code)
	}
	if code := monitor.get("/v1/status"); code != 200 {
		t.Errorf("over the connection that there was before: got %d, want 200", code)
	}
	h.evicted(most+2, most)
}

// A stranger that sends requests without reading the answers always has a request under way. The answers
// are large, so that few of them fill the buffers of the connection.
func TestStrangersThatDoNotReadMakeRoom(t *testing.T) {
	const most = 4
	h := serveTo(t, tokenOf(t), Options{MaxConnections: most, times: unhurried}, "web")
	requests := strings.Repeat("GET /chart.js HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000)
	for range most {
		c := h.call("tcp", "")
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(4096)
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		done := make(chan struct{})
		t.Cleanup(func() { _ = c.Close(); <-done })
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				if _, err := io.WriteString(c, requests); err != nil {
					return // the connection has been evicted
				}
			}
		}()
	}
	h.settled(answering, most)
	for range 2 * most {
		if code := h.call("tcp", "").get("/v1/status"); code != 200 {
			t.Fatalf("got %d, want 200", code)
		}
	}
}

// HTTP/2 is not supported, because one connection could carry any number of streams that nothing would count.
func TestHTTP2IsNotSpoken(t *testing.T) {
	h := serve(t, Options{times: unhurried}, "web")
	for _, request := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" +
			"HTTP2-Settings: AAMAAABk\r\n\r\n",
	} {
		c := h.call("tcp", "")
		c.say(request)
		line, err := c.in.ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 ") || strings.HasPrefix(line, "HTTP/1.1 101") {
			t.Errorf("got %q, %v", line, err)
		}
	}
}

// The server does not wait for the body of a stranger's request.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	h := serveTo(t, tokenOf(t), Options{times: unhurried}, "web")
	for path, want := range map[string]int{"POST /v1/reload": 401, "GET /healthz": 200} {
		c := h.call("tcp", "")
		c.say(path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{")
		if code := c.code(); code != want {
			t.Errorf("%s: got %d, want %d", path, code, want)
		}
		c.closed()
	}
}

// An operator's request is not interrupted. A new connection is refused if no other connection can be closed.
func TestRequestsUnderWayAreNotInterrupted(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	reload := func(context.Context) (string, error) { began <- struct{}{}; <-release; return "done", nil }
	h := serve(t, Options{MaxConnections: 2, times: unhurried, Reload: reload}, "web")
	stream := h.call("tcp", "")
	stream.say("GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
	change := h.call("unix", "") // the limit applies to all listeners together
	change.say("POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-began
	if line, err := stream.in.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("got %q, %v", line, err)
	}
	for _, network := range []string{"tcp", "unix"} {
		c := h.call(network, "")
		if code := c.code(); code != 503 {
			t.Errorf("got %d, want 503", code)
		}
		c.closed()
	}
	close(release)
	if code := change.code(); code != 200 {
		t.Errorf("the reload was answered with %d, want 200", code)
	}
	if open, evicted, refused := h.slots.counts(); open != 2 || evicted != 0 || refused != 2 {
		t.Errorf("%d open, %d evicted, %d refused", open, evicted, refused)
	}
	h.settled(waiting, 1) // the connection of the reload
	if code := h.call("unix", "").get("/v1/status"); code != 200 {
		t.Errorf("got %d, want 200", code)
	}
	change.closed()
}

// An operator's stalled request is interrupted for a new connection; other requests of operators are not.
func TestStalledRequestsMakeRoom(t *testing.T) {
	for stalled, want := range map[time.Duration]int{time.Nanosecond: 200, time.Hour: 503} {
		o := Options{MaxConnections: 1, times: unhurried}
		o.times.stalled = stalled
		h := serve(t, o, "web")
		c := h.call("tcp", "")
		c.say("POST /v1/log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
		h.settled(answering, 1, operator)
		if code := h.call("tcp", "").get("/v1/status"); code != want {
			t.Errorf("after %v: got %d, want %d", stalled, code, want)
		}
		if want == 200 {
			c.closed()
		}
		_ = c.Close()
	}
}

// A peer with many connections loses its own slots to its new connections, and takes no slots of other peers.
func TestEachPeerHasAShareOfConnections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	const most = 8
	h := serve(t, Options{MaxConnections: most, times: unhurried}, "web")
	var others []*caller
	for i := range 3 {
		c := h.call("tcp", fmt.Sprintf("127.0.0.%d", 10+i))
		if code := c.get("/v1/status"); code != 200 {
			t.Fatalf("got %d", code)
		}
		others = append(others, c)
	}
	for range 3 * most {
		if code := h.call("tcp", "127.0.0.2").get("/v1/status"); code != 200 {
			t.Fatalf("got %d", code)
		}
	}
	for _, c := range others {
		if code := c.get("/v1/status"); code != 200 {
			t.Errorf("got %d, want 200", code)
		}
	}
	h.evicted(3*most-most+3, most)
}

// Connections lose their slots in this order: each before the ones below it.
func TestRanks(t *testing.T) {
	now := time.Now()
	at := func(s string) peer { p, _ := peerOf(&net.TCPAddr{IP: net.ParseIP(s)}); return p }
	order := []*slotConn{
		// The peer with the most connections loses one.
		{standing: remoteStranger, phase: waiting, peer: at("10.0.0.2"), since: now.Add(-time.Second)},
		{standing: remoteStranger, phase: waiting, peer: at("10.0.0.1"), since: now.Add(-time.Minute)},
		{standing: remoteStranger, phase: waiting, peer: at("2001:db8::1"), since: now.Add(-time.Second)},
		{standing: remoteStranger, phase: answering, peer: at("10.0.0.2"), since: now},
		{standing: localStranger, phase: waiting, since: now},
		{standing: localStranger, phase: answering, since: now},
		{standing: operator, phase: waiting, since: now},
		{standing: operator, phase: answering, since: now.Add(-time.Minute)},
		// The following connections keep their slots.
		{standing: operator, phase: answering, since: now.Add(-time.Millisecond)},
		{standing: operator, phase: kept, since: now.Add(-time.Hour)},
	}
	s := newSlots(len(order), time.Second, nil)
	for _, c := range order {
		s.open[c] = struct{}{}
	}
	for i, want := range order[:len(order)-2] {
		got := s.victimLocked(now)
		if got != want {
			t.Fatalf("number %d: got %+v, want %+v", i, got, want)
		}
		delete(s.open, got)
	}
	if got := s.victimLocked(now); got != nil {
		t.Errorf("got %+v, want nothing", got)
	}
}

func TestPeers(t *testing.T) {
	for _, tt := range []struct {
		addr  net.Addr
		want  string
		local bool
	}{
		{&net.UnixAddr{}, "unix socket", true},
		{&net.TCPAddr{IP: net.ParseIP("127.0.0.1")}, "127.0.0.1", true},
		{&net.TCPAddr{IP: net.ParseIP("::1")}, "::/64", true},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:10.1.2.3")}, "10.1.2.3", false},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::/64", false},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8:1:2:3::4")}, "2001:db8:1:2::/64", false},
	} {
		if got, local := peerOf(tt.addr); got.String() != tt.want || local != tt.local {
			t.Errorf("%v: got %v, local %v", tt.addr, got, local)
		}
	}
}

// The log has one line a minute, however many connections are closed.
func TestComplaintsAreRare(t *testing.T) {
	var c complaint
	now := time.Unix(1000, 0)
	var got []int64
	for i := range 200 {
		if n := c.add(now.Add(time.Duration(i) * time.Second)); n > 0 {
			got = append(got, n)
		}
	}
	if fmt.Sprint(got) != "[1 60 60 60]" || c.total != 200 {
		t.Errorf("got %v of %d", got, c.total)
	}
}
