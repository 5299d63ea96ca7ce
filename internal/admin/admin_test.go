package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/testseccomp"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

func TestMain(m *testing.M) {
	testseccomp.Main()
	goleak.VerifyTestMain(m)
}

// A fake is the state that a Server shows in tests. Tests change its parts with set.
type fake struct {
	mu        sync.Mutex
	stats     []proxy.Stats
	listeners []proxy.Listener
	watch     []discovery.WatchStatus
	lag       discovery.Lag
	services  []Configured

	// For Connections: the last query, and the result.
	query     proxy.ConnectionQuery
	page      []proxy.Connection
	next      string
	pageError error

	snapshots int // how often the counters were read
	denied    []proxy.Denied

	certificates []Certificate // of web
	mesh         Mesh
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) Snapshot() []proxy.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots++
	return append([]proxy.Stats{}, f.stats...)
}

// count returns how often the counters were read.
func (f *fake) certificatesBy() map[string][]Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return map[string][]Certificate{"web": f.certificates}
}

func (f *fake) meshNow() Mesh {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.mesh
	m.Roots, m.Identities = append([]MeshRoot{}, m.Roots...), append([]Identity{}, m.Identities...)
	return m
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshots
}

func (f *fake) EachActivity(each func(string, proxy.Activity)) {
	f.mu.Lock()
	stats := append([]proxy.Stats{}, f.stats...)
	f.mu.Unlock()
	for _, s := range stats {
		each(s.Service, proxy.Activity{Clients: s.Connections + s.Sessions,
			Active: s.ConnectionsActive + s.SessionsActive, Bytes: s.BytesUp + s.BytesDown, RefusedBy: s.RefusedBy})
	}
}

func (f *fake) Listeners() []proxy.Listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]proxy.Listener{}, f.listeners...)
}

// Connections stores the query and returns the prepared page. The proxier's tests check how queries work.
func (f *fake) Connections(_ context.Context, q proxy.ConnectionQuery) ([]proxy.Connection, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.query = q
	return f.page, f.next, f.pageError
}

func (f *fake) Denied() []proxy.Denied {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.denied)
}

func (f *fake) configured() []Configured {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Configured{}, f.services...)
}

type fakeWatches struct{ *fake }

func (f fakeWatches) Snapshot() []discovery.WatchStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]discovery.WatchStatus{}, f.watch...)
}

func (f fakeWatches) Lag() discovery.Lag {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lag
}

// A house is a running Server with a Unix socket and a TCP listener.
type house struct {
	*testing.T
	*Server
	fake     *fake
	sets     *endpoints.Sets
	balancer *lb.RoundRobin
	events   *endpoints.Events
	tcp      string
	socket   net.Listener
	listener net.Listener // of tcp
	client   *Client      // connects to the Unix socket
}

func serve(t *testing.T, o Options, services ...string) *house {
	t.Helper()
	return serveTo(t, Access{}, o, services...)
}

// serveTo is serve with given access rules.
func serveTo(t *testing.T, access Access, o Options, services ...string) *house {
	t.Helper()
	h := &house{T: t, fake: &fake{}, balancer: lb.NewRoundRobin(), events: endpoints.NewEvents()}
	for i, name := range services {
		h.fake.services = append(h.fake.services,
			Configured{Name: name, Protocol: "tcp", Source: fmt.Sprintf("consul service %q", name)})
		h.fake.stats = append(h.fake.stats, proxy.Stats{Service: name})
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9000+i))
		h.fake.listeners = append(h.fake.listeners, proxy.Listener{Service: name, Addr: lb.Addr{AddrPort: at}})
	}
	h.sets = endpoints.NewSets(h.balancer, h.events, nil)
	o.Events = h.events
	o.State = State{Proxier: h.fake, Sets: h.sets, Watches: func() Watches { return fakeWatches{h.fake} },
		Configured: h.fake.configured, Excluded: o.State.Excluded, Certificates: h.fake.certificatesBy,
		Mesh: h.fake.meshNow}
	h.Server = New(o)
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := Listen(Address{Socket: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := Listen(Address{TCP: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	h.tcp, h.socket, h.listener = tcp.Addr().String(), socket, tcp
	var running sync.WaitGroup
	for _, l := range []net.Listener{socket, tcp} {
		running.Go(func() {
			if err := h.Serve(l, access); err != nil {
				t.Error(err)
			}
		})
	}
	token := ""
	if access.TokenFile != "" {
		token = "right"
	}
	h.client = NewClient(Address{Socket: filepath.Join(dir, "s")}, token, Chosen)
	t.Cleanup(func() {
		h.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		h.Shutdown(ctx)
		running.Wait()
	})
	return h
}

func (h *house) get(path string, v any) {
	h.Helper()
	if err := h.client.Get(h.Context(), path, v); err != nil {
		h.Fatalf("GET %s: %v", path, err)
	}
}

// endpoints sets the set of a service: each ID has its own port.
func (h *house) endpoints(service string, ids ...string) {
	set := lb.Endpoints{Service: service}
	for i, id := range ids {
		set.Endpoints = append(set.Endpoints, lb.Endpoint{ID: id,
			Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(80+i)), Weight: 1})
	}
	h.sets.OnUpdate([]lb.Endpoints{set})
}

// ask sends a request over TCP with the given headers, and returns the status code and the body of the answer.
func (h *house) ask(method, path, body string, headers ...string) (int, string) {
	h.Helper()
	r, err := http.NewRequestWithContext(h.Context(), method, "http://"+h.tcp+path, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if r.Header.Set(name, value); name == "Host" {
			r.Host = strings.ReplaceAll(value, "SELF", h.tcp)
		}
		r.Header.Set(name, strings.ReplaceAll(value, "SELF", h.tcp))
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		h.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func (h *house) eventually(what string, check func() bool) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-ctx.Done():
			h.Fatalf("waited for this: %s", what)
		case <-tick.C:
		}
	}
}

func TestReadyWhenEachServiceHasASet(t *testing.T) {
	h := serve(t, Options{}, "web", "dns")
	h.endpoints("web", "a")
	if code, text := h.ask("GET", "/readyz", ""); code != 503 || !strings.Contains(text, "1 of 2 services") {
		t.Errorf("got %d %q, want 503 and how many are missing", code, text)
	}
	if code, _ := h.ask("GET", "/healthz", ""); code != 200 {
		t.Errorf("healthz: got %d", code)
	}
	h.endpoints("dns") // an empty set counts as known
	if code, text := h.ask("GET", "/readyz", ""); code != 200 || text != "ready\n" {
		t.Errorf("got %d %q, want ready", code, text)
	}
	var status Status
	if h.get("/v1/status", &status); !status.Ready || status.Services != 2 || status.EndpointsIn != 1 ||
		status.PID != os.Getpid() {
		t.Errorf("got %+v", status)
	}
}

func TestServicesShowEndpointsCountersAndTrouble(t *testing.T) {
	h := serve(t, Options{}, "web", "a/b c")
	h.endpoints("web", "n/web-1", "n/web-2")
	failing := time.Now().Add(-time.Minute).Round(0)
	h.fake.set(func(f *fake) {
		f.stats[0].Connections, f.stats[0].ConnectionsActive, f.stats[0].BytesUp = 7, 2, 100
		f.stats[0].Dials.Buckets[1], f.stats[0].Dials.Sum = 5, time.Second
		f.stats[0].Refused, f.stats[0].RefusedBy[proxy.RefusedPerClient] = 3, 3
		f.stats[0].Descriptors, f.stats[0].DescriptorWaits = proxy.Descriptors{Taken: 4, Floor: 20, Ceiling: 300}, 9
		f.watch = []discovery.WatchStatus{{Services: []string{"web"}, Error: "no leader", ErrorSince: failing}}
	})
	var web Service
	h.get("/v1/services/web", &web)
	if web.Set != SetFresh || len(web.Endpoints) != 2 || web.Endpoints[0].ID != "n/web-1" ||
		web.Endpoints[0].State != StateIn || web.Endpoints[1].Address != "10.0.0.1:81" {
		t.Errorf("got %+v", web)
	}
	if c := web.Counters; c.Connections != 7 || c.ConnectionsActive != 2 || c.BytesUp != 100 || c.Dials != 5 ||
		c.DialSeconds != 1 {
		t.Errorf("got %+v", c)
	}
	if by := web.Counters.RefusedBy; web.Counters.Refused != 3 || len(by) != 1 || by["per_client"] != 3 {
		t.Errorf("refused %d, by %v, want 3 per_client", web.Counters.Refused, by)
	}
	if d := web.Descriptors; d != (Descriptors{4, 20, 300}) || web.Counters.DescriptorWaits != 9 {
		t.Errorf("got descriptors %+v and %d waits", d, web.Counters.DescriptorWaits)
	}
	if web.Problem != "no leader" || web.StaleSince == nil || !web.StaleSince.Equal(failing) ||
		web.Listeners[0] != "127.0.0.1:9000" {
		t.Errorf("got %+v", web)
	}
	var odd Service
	if h.get("/v1/services/a%2Fb%20c", &odd); odd.Name != "a/b c" || odd.Set != SetNone {
		t.Errorf("got %+v", odd)
	}
	var all ServicesAnswer
	if h.get("/v1/services", &all); len(all.Services) != 2 || all.Services[0].Name != "web" {
		t.Errorf("got %+v", all)
	}
	if code, text := h.ask("GET", "/v1/services/none", ""); code != 404 ||
		!strings.Contains(text, `no service \"none\"`) {
		t.Errorf("got %d %s", code, text)
	}
}

func TestDrainedEndpointGetsNoNewClientsUntilUndrained(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	drain := func(action, id string) error {
		return h.client.Post(t.Context(), "/v1/services/web/"+action, map[string]string{"endpoint": id}, nil)
	}
	picked := func() string {
		ids := map[string]bool{}
		for range 4 {
			e, err := h.balancer.NextEndpoint("web", netip.AddrPort{}, lb.Tried{})
			if err != nil {
				return err.Error()
			}
			ids[e.ID] = true
		}
		return fmt.Sprint(ids["n/1"], ids["n/2"], ids["n/3"])
	}
	if err := drain("drain", "n/1"); err != nil || picked() != "false true false" {
		t.Errorf("got %v and %s", err, picked())
	}
	h.endpoints("web", "n/1", "n/2", "n/3") // an update does not end the drain
	if got := picked(); got != "false true true" {
		t.Errorf("after an update: got %s", got)
	}
	h.endpoints("web", "n/2")
	var web Service
	if h.get("/v1/services/web", &web); len(web.Endpoints) != 2 || web.Endpoints[0].State != StateOut ||
		web.Endpoints[0].Reason != ReasonDrained {
		t.Errorf("drained and gone: got %+v", web.Endpoints)
	}
	h.endpoints("web", "n/1", "n/2")
	if err := drain("undrain", "n/1"); err != nil || picked() != "true true false" {
		t.Errorf("got %v and %s", err, picked())
	}
	if err := drain("drain", "n/9"); err == nil || !strings.Contains(err.Error(), `no endpoint "n/9"`) {
		t.Errorf("got %v", err)
	}
	if err := drain("undrain", "n/1"); err == nil {
		t.Error("undrained twice")
	}
}

// The API combines what the source and the balancer know. An operator's drain comes first, then the balancer's state,
// then the source's.
func TestEndpointsSayWhyTheyAreInOrOut(t *testing.T) {
	until := time.Unix(1900000000, 0)
	h := serve(t, Options{}, "web")
	h.endpoints("web", "drained", "ejected", "held", "plain")
	if _, err := h.sets.Drain("web", "drained", endpoints.Order{}); err != nil {
		t.Fatal(err)
	}
	h.o.State.Instances = func(string) []Endpoint {
		return []Endpoint{
			{ID: "critical", State: StateOut, Reason: ReasonStatus, Detail: "check x: no", Tags: []string{"v1"}},
			{ID: "drained", State: StateIn, Reason: ReasonHealthy, Tags: []string{"v2"}},
			{ID: "ejected", State: StateIn, Reason: ReasonHeld, Until: &until},
			{ID: "held", State: StateIn, Reason: ReasonHeld, Until: &until},
			{ID: "plain", State: StateOut, Reason: ReasonStatus}, // the set will change soon
		}
	}
	h.o.State.Balanced = func() map[string]Balanced {
		return map[string]Balanced{"web": {Waiting: 3, Endpoints: []Endpoint{
			{ID: "drained", State: StateOut, Reason: ReasonEjected},
			{ID: "ejected", State: StateOut, Reason: ReasonEjected, Detail: "refused",
				Counters: &EndpointCounters{DialsFailed: 2}},
			{ID: "plain", Counters: &EndpointCounters{Picks: 9}},
			{ID: "gone", State: StateOut, Reason: ReasonEjected},
		}}, "else": {}}
	}
	var web Service
	h.get("/v1/services/web", &web)
	var got []string
	for _, e := range web.Endpoints {
		got = append(got, strings.Join([]string{e.ID, e.State, e.Reason, e.Detail}, " "))
	}
	want := []string{"critical out status check x: no",
		"drained out drained drained by an operator, in this Lictor only",
		"ejected out ejected refused", "held in held ", "plain in healthy "}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if web.Waiting != 3 || web.Endpoints[2].Counters.DialsFailed != 2 || web.Endpoints[4].Counters.Picks != 9 ||
		web.Endpoints[1].Tags[0] != "v2" || !web.Endpoints[3].Until.Equal(until) {
		t.Errorf("got %+v", web)
	}
}

func TestEventsTellWhatChangedAndCanBeWaitedFor(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "a", "b")
	h.endpoints("web", "b", "c") // b moves to a's port
	var got EventsAnswer
	h.get("/v1/events?service=web", &got)
	var kinds []string
	for _, e := range got.Events {
		kinds = append(kinds, string(e.Kind)+" "+e.Endpoint)
	}
	if want := "[joined a joined b changed b joined c left a]"; fmt.Sprint(kinds) != want {
		t.Errorf("got %v, want %v", kinds, want)
	}
	waited := make(chan EventsAnswer, 1)
	go func() {
		var answer EventsAnswer
		_ = h.client.Get(t.Context(), fmt.Sprintf("/v1/events?after=%d&wait=50", got.Next), &answer)
		waited <- answer
	}()
	h.endpoints("web", "b")
	if answer := <-waited; len(answer.Events) == 0 || answer.Events[0].Kind != endpoints.KindLeft &&
		answer.Events[0].Kind != endpoints.KindChanged {
		t.Errorf("got %+v", answer)
	}
	if code, _ := h.ask("GET", "/v1/events?after=x", ""); code != 400 {
		t.Errorf("got %d, want 400", code)
	}
}

func TestTheSameSetAgainIsNoChange(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "a")
	var first, second Service
	h.get("/v1/services/web", &first)
	h.endpoints("web", "a")
	if h.get("/v1/services/web", &second); !second.LastChange.Equal(*first.LastChange) ||
		!second.Endpoints[0].Since.Equal(*first.Endpoints[0].Since) {
		t.Errorf("got %v and %v", first.LastChange, second.LastChange)
	}
	if events, _, _ := h.events.After(0, "", 10); len(events) != 1 {
		t.Errorf("got %+v", events)
	}
}

func TestReload(t *testing.T) {
	var fail error
	h := serve(t, Options{Reload: func(context.Context) (string, error) { return "1 service changed", fail }}, "web")
	var got Reload
	if err := h.client.Post(t.Context(), "/v1/reload", nil, &got); err != nil || !got.OK ||
		got.Summary != "1 service changed" {
		t.Errorf("got %+v, %v", got, err)
	}
	fail = fmt.Errorf("lictor.hcl:3: no")
	err := h.client.Post(t.Context(), "/v1/reload", nil, &got)
	if e, is := err.(*APIError); !is || e.Code != 422 || e.Text != "lictor.hcl:3: no" {
		t.Errorf("got %v", err)
	}
	var status Status
	if h.get("/v1/status", &status); status.LastReload == nil || status.LastReload.OK ||
		status.LastReload.Error != "lictor.hcl:3: no" {
		t.Errorf("got %+v", status.LastReload)
	}
}

func TestStatusHasDeniedCalls(t *testing.T) {
	h := serve(t, Options{}, "web")
	var got Status
	if h.get("/v1/status", &got); got.Denied != nil {
		t.Errorf("nothing is denied, got %+v", got.Denied)
	}
	h.fake.set(func(f *fake) { f.denied = []proxy.Denied{{Call: "splice", Error: "no", Instead: "copy"}} })
	want := []Denied{{Call: "splice", Error: "no", Instead: "copy"}}
	if h.get("/v1/status", &got); !slices.Equal(got.Denied, want) {
		t.Errorf("got %+v, want %+v", got.Denied, want)
	}
}

func TestLogLevel(t *testing.T) {
	level := "info"
	h := serve(t, Options{
		Level:    func() string { return level },
		SetLevel: func(l string) error { level = l; return nil },
	})
	if code, _ := h.ask("POST", "/v1/log-level", `{"level":"debug"}`); code != 200 || level != "debug" {
		t.Errorf("got %d and level %s", code, level)
	}
	for _, body := range []string{"", "debug", `{"levle":"info"}`, `{"level":"info"} {}`,
		`{"level":"` + strings.Repeat("x", maxBody) + `"}`} {
		if code, _ := h.ask("POST", "/v1/log-level", body); code != 400 || level != "debug" {
			t.Errorf("body %.20q: got %d and level %.20s", body, code, level)
		}
	}
}

func TestGuard(t *testing.T) {
	h := serveTo(t, Access{Hosts: []string{"lictor.example.com"}},
		Options{SetLevel: func(string) error { return nil }}, "web")
	const level = `{"level":"info"}`
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, method string
		headers      []string
		want         int
	}{
		{"a program", "POST", nil, 200},
		{"by localhost", "GET", []string{"Host: localhost:8510"}, 200},
		{"by IPv6", "GET", []string{"Host: [::1]:8510"}, 200},
		{"by a configured name", "GET", []string{"Host: LICTOR.example.com"}, 200},
		{"by the name of this host", "GET", []string{"Host: " + hostname + ":1"}, 200},
		{"a name that was made to point here", "GET", []string{"Host: evil.example.com:8510"}, 403},
		{"and changes", "POST", []string{"Host: evil.example.com:8510", "Origin: http://evil.example.com:8510",
			"Sec-Fetch-Site: same-origin"}, 403},
		{"the page itself", "POST", []string{"Host: SELF", "Origin: http://SELF", "Sec-Fetch-Site: same-origin"}, 200},
		{"a script of another site", "GET", []string{"Origin: https://evil.example.com"}, 403},
		{"a form of another site", "POST", []string{"Origin: https://evil.example.com", "Sec-Fetch-Site: cross-site"},
			403},
		{"a form without an origin", "POST", []string{"Origin: null"}, 403},
		{"an image on another site", "GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors",
			"Sec-Fetch-Dest: image"}, 403},
		{"another port of this host", "POST", []string{"Sec-Fetch-Site: same-site"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, body := "/v1/status", ""
			if tt.method == "POST" {
				path, body = "/v1/log-level", level
			}
			if got, text := h.ask(tt.method, path, body, tt.headers...); got != tt.want {
				t.Errorf("got %d, want %d: %s", got, tt.want, text)
			}
		})
	}
	if code, _ := h.ask("GET", "/healthz", "", "Host: x.svc.cluster.local"); code != 200 {
		t.Errorf("a probe by another name: got %d", code)
	}
	if code, _ := h.ask("GET", "/v1/reload", ""); code != 405 {
		t.Errorf("a change by GET: got %d, want 405", code)
	}
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("right\n")
	h := serveTo(t, Access{TokenFile: file}, Options{}, "web")
	for _, tt := range []struct {
		header string
		want   int
	}{
		{"Authorization: Bearer right", 200},
		{"Authorization: bearer right", 200},
		{"Authorization: BEARER right", 200},
		{"Authorization: Basic eDpyaWdodA==", 200}, // x:right
		{"Authorization: Bearer wrong", 401},
		{"Authorization: Bearer ", 401},
		{"Authorization: Basic eDp3cm9uZw==", 401},
		{"X: ", 401},
	} {
		if got, _ := h.ask("GET", "/v1/status", "", tt.header); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.header, got, tt.want)
		}
	}
	if code, _ := h.ask("GET", "/healthz", ""); code != 200 {
		t.Errorf("healthz: got %d, probes have no token", code)
	}
	const other = "Host: lictor.service.consul"
	if code, _ := h.ask("GET", "/v1/status", "", other, "Authorization: Bearer right"); code != 200 {
		t.Errorf("the token with another name: got %d", code)
	}
	if code, _ := h.ask("GET", "/v1/status", "", other, "Authorization: Bearer wrong"); code != 403 {
		t.Errorf("a wrong token with another name: got %d", code)
	}
	h.get("/v1/status", nil) // the client has the token
	write("another")
	if code, _ := h.ask("GET", "/v1/status", "", "Authorization: Bearer right"); code != 401 {
		t.Errorf("the old token: got %d", code)
	}
	write("  ")
	if code, _ := h.ask("GET", "/v1/status", "", "Authorization: Bearer "); code != 503 {
		t.Errorf("an empty file: got %d", code)
	}
	write(strings.Repeat("x", MaxTokenFile+1))
	if code, _ := h.ask("GET", "/v1/status", "", "Authorization: Bearer right"); code != 503 {
		t.Errorf("a file that is too long: got %d", code)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	h := serve(t, Options{})
	for _, length := range []int{maxHeader, 2 * maxHeader} { // without the other bytes of the header
		conn, err := net.Dial("tcp", h.tcp)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: %s\r\n\r\n",
			strings.Repeat("x", length))
		// The connection may be reset before the answer is read.
		if answer, _ := io.ReadAll(conn); strings.Contains(string(answer), "200 OK") {
			t.Errorf("%d bytes: got %s", length, answer)
		}
		_ = conn.Close()
	}
}

func TestConfigIsShown(t *testing.T) {
	h := serve(t, Options{Config: func() any { return map[string]int{"a": 1} }})
	var got map[string]int
	if h.get("/v1/config", &got); got["a"] != 1 {
		t.Errorf("got %v", got)
	}
}

func TestHistoryHasRates(t *testing.T) {
	h := newHistory()
	now := time.Unix(1000, 0)
	look := func(after time.Duration, all map[string]proxy.Activity) {
		now = now.Add(after)
		h.sample(now, func(f func(string, proxy.Activity)) {
			for name, a := range all {
				f(name, a)
			}
		})
	}
	of := func(a proxy.Activity) map[string]proxy.Activity { return map[string]proxy.Activity{"web": a} }
	look(0, of(proxy.Activity{Clients: 5}))
	for i := range historyLength + 3 {
		look(2*time.Second, of(proxy.Activity{Clients: int64(5 + 20*(i+1)), Bytes: int64(100 * (i + 1)), Active: 3,
			Dials: int64(i), DialTime: time.Duration(i) * time.Second / 2}))
	}
	got := h.of("web")
	if len(got) != historyLength || got[0] != (Sample{Clients: 10, Active: 3, Bytes: 50, Latency: 0.5}) {
		t.Errorf("got %d samples, of which the first is %+v", len(got), got[0])
	}
	look(time.Second, of(proxy.Activity{})) // the counters started again
	if got = h.of("web"); got[historyLength-1].Clients != 0 || got[historyLength-1].Bytes != 0 {
		t.Errorf("counters that went back: got %+v", got[historyLength-1])
	}
	look(time.Second, nil)
	if got = h.of("web"); len(got) != 0 || len(h.services) != 0 {
		t.Error("a service that is gone still has a history")
	}
}

// The history of an idle service has samples, but takes no memory.
func TestHistoryOfNothingIsFree(t *testing.T) {
	h := newHistory()
	now, clients := time.Unix(1000, 0), int64(0)
	look := func() {
		now = now.Add(time.Second)
		h.sample(now, func(f func(string, proxy.Activity)) { f("web", proxy.Activity{Clients: clients}) })
	}
	want := func(n int, busy ...int) {
		t.Helper()
		samples := make([]Sample, n)
		for _, i := range busy {
			samples[i].Clients = 1
		}
		if got := h.of("web"); !slices.Equal(got, samples) {
			t.Errorf("got %v, want %d samples with clients in %v", got, n, busy)
		}
		if kept := h.services["web"].samples != nil; kept != (len(busy) > 0) {
			t.Errorf("samples are kept: %v, with clients in %v", kept, busy)
		}
	}
	look()
	want(0)
	for range 5 {
		look()
	}
	want(5)
	clients++
	look()
	want(6, 5)
	for range historyLength - 1 {
		look()
	}
	want(historyLength, 0)
	look()
	want(historyLength)
	clients++
	look()
	want(historyLength, historyLength-1)
}

// stream reads server-sent events until the test ends.
func (h *house) stream() <-chan [2]string {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.tcp+"/v1/watch", nil)
	if err != nil {
		h.Fatal(err)
	}
	transport := &http.Transport{}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		h.Fatal(err)
	}
	got, done := make(chan [2]string, 100), make(chan struct{})
	h.Cleanup(func() { cancel(); <-done; _ = answer.Body.Close(); transport.CloseIdleConnections() })
	go func() {
		defer close(done)
		defer close(got)
		buf, rest := make([]byte, 1<<20), ""
		for {
			n, err := answer.Body.Read(buf)
			rest += string(buf[:n])
			for {
				one, more, whole := strings.Cut(rest, "\n\n")
				if !whole {
					break
				}
				name, data, _ := strings.Cut(strings.TrimPrefix(one, "event: "), "\ndata: ")
				select {
				case got <- [2]string{name, data}:
				case <-ctx.Done():
					return
				}
				rest = more
			}
			if err != nil {
				return
			}
		}
	}()
	return got
}

func TestStreamSendsEverythingAndThenWhatChanged(t *testing.T) {
	h := serve(t, Options{}, "web", "dns")
	h.endpoints("web", "a")
	h.endpoints("dns", "a")
	stream := h.stream()
	next := func(name string) string {
		for m := range stream {
			if m[0] == name {
				return m[1]
			}
		}
		t.Fatal("the stream has ended")
		return ""
	}
	names := func(text string) string {
		var c struct {
			Services []Service
			Removed  []string
		}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		all := map[string]int{}
		for _, s := range c.Services {
			all[s.Name] = len(s.Endpoints)
		}
		return fmt.Sprint(all, c.Removed)
	}
	if got := names(next("services")); got != "map[dns:1 web:1] []" {
		t.Errorf("got %s at first", got)
	}
	h.endpoints("web", "a", "b")
	if got := names(next("services")); got != "map[web:2] []" {
		t.Errorf("got %s after a change", got)
	}
	h.fake.set(func(f *fake) { f.services = f.services[:1] })
	if got := names(next("services")); got != "map[] [dns]" {
		t.Errorf("got %s after a removal", got)
	}
	if !h.hub.watched() {
		t.Error("the hub is watched without a stream")
	}
}

func TestSocketIsPrivateAndReplacesOnlyTheDead(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := Address{Socket: filepath.Join(dir, "s")}
	first, err := Listen(a)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(a.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if _, err := Listen(a); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want that it is in use", err)
	}
	_ = first.(*socket).UnixListener.Close() // as after a kill: the file stays
	second, err := Listen(a)
	if err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	_ = first.Close()
	if _, err := os.Stat(a.Socket); err != nil {
		t.Error("the first took the file of the second away")
	}
	_ = second.Close()
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestDefaultSocketIsInTheFirstFolderThatCanBeUsed(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := ListenDefault(func(name string) string {
		return map[string]string{"RUNTIME_DIRECTORY": dir +
			":/other"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := l.Addr().String(); got != filepath.Join(dir, "admin.sock") {
		t.Errorf("got %s", got)
	}
}

// A second Lictor that may use the first one's folder puts its socket into the next folder.
func TestDefaultSocketBesideOneInUse(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	paths := []string{filepath.Join(dir, "admin.sock"), filepath.Join(dir, "lictor", "admin.sock")}
	for _, want := range paths {
		l, err := listenFirst(paths)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if got := l.Addr().String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := listenFirst(paths); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a third one: got %v", err)
	}
}

func TestHealth(t *testing.T) {
	var stuck atomic.Pointer[error]
	h := serve(t, Options{Healthy: func() error {
		if err := stuck.Load(); err != nil {
			return *err
		}
		return nil
	}}, "web")
	if code, text := h.ask("GET", "/healthz", ""); code != 200 || text != "ok\n" {
		t.Errorf("got %d, %q", code, text)
	}
	err := errors.New("event loop 1: no answer for 5s")
	stuck.Store(&err)
	if code, text := h.ask("GET", "/healthz", ""); code != 503 ||
		text != "not healthy\nevent loop 1: no answer for 5s\n" {
		t.Errorf("got %d, %q", code, text)
	}
}

// A request waits while another one reads the token file from a hung file server. It ends when its client gives up.
func TestTokenFileThatHangs(t *testing.T) {
	g := &guard{tokenFile: "token", reading: make(chan struct{}, 1)}
	g.reading <- struct{}{} // another request is reading the file
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/v1/status", nil).WithContext(ctx)
	if code, err := g.authorize(r); code != http.StatusServiceUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d, %v", code, err)
	}
}

// The API shows the most serious problem of a source.
func TestServicesShowTheirProblem(t *testing.T) {
	h := serve(t, Options{}, "web")
	tests := []struct {
		watch discovery.WatchStatus
		want  string
	}{
		{discovery.WatchStatus{}, ""},
		{discovery.WatchStatus{Bad: 3}, "3 instances are left out because of their address or ID; see lictor explain"},
		{discovery.WatchStatus{Bad: 3, Held: 2},
			"2 endpoints are held that Consul no longer reports; see lictor explain"},
		{discovery.WatchStatus{Hidden: true, Bad: 3}, discovery.ErrNoToken.Error()},
		{discovery.WatchStatus{Error: "no leader", Hidden: true, Held: 2}, "no leader"},
	}
	for _, tt := range tests {
		tt.watch.Services = []string{"web"}
		h.fake.set(func(f *fake) { f.watch = []discovery.WatchStatus{tt.watch} })
		var web Service
		h.get("/v1/services/web", &web)
		if web.Problem != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.watch, web.Problem, tt.want)
		}
	}
}
