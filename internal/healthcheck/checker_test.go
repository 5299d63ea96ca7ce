package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// A member is an endpoint that answers with a status, or does not answer while the status is zero.
type member struct {
	*httptest.Server
	status atomic.Int32
	asked  atomic.Int64
}

func startMember(t *testing.T, status int32) *member {
	t.Helper()
	m := &member{}
	m.status.Store(status)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		status := m.status.Load()
		if status == 0 || r.URL.Path != "/primary" {
			panic(http.ErrAbortHandler) // closes the connection
		}
		w.WriteHeader(int(status))
	}))
	m.Config.ErrorLog = nil
	t.Cleanup(m.Close)
	return m
}

func (m *member) endpoint(id string) lb.Endpoint {
	return lb.Endpoint{ID: id, Addr: netip.MustParseAddrPort(m.Listener.Addr().String()), Weight: 1}
}

// A judged is a Checker with its last verdicts.
type judged struct {
	*Checker
	mu       sync.Mutex
	set      lb.Endpoints
	verdicts map[string]cycles.Verdict
}

func newJudged(t *testing.T, check Check) *judged {
	t.Helper()
	j := &judged{set: lb.Endpoints{Service: "db", Removed: true}}
	j.Checker = New(Options{Changed: func(string) { j.judge() }})
	t.Cleanup(func() {
		j.Close()
		goleak.VerifyNone(t, goleak.IgnoreAnyFunction("net/http/httptest.(*Server).goServe.func1"),
			goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
	})
	check.Path, check.Interval, check.Timeout = "/primary", 5*time.Millisecond, testproc.Patience
	j.Apply(map[string]Check{"db": check})
	return j
}

// replace replaces the set of endpoints.
func (j *judged) replace(endpoints ...lb.Endpoint) {
	j.mu.Lock()
	j.set = lb.Endpoints{Service: "db", Endpoints: endpoints}
	j.mu.Unlock()
	j.judge()
}

func (j *judged) judge() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if changed, is := j.Judge([]lb.Endpoints{j.set})["db"]; is {
		j.verdicts = changed
	}
}

// out returns why an endpoint gets no clients, or an empty string.
func (j *judged) out(id string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdicts[id].Text
}

func (j *judged) awaitIn(t *testing.T, id string) {
	t.Helper()
	testproc.Await(t, id+" gets clients", func() bool { return j.out(id) == "" })
}

func (j *judged) awaitOut(t *testing.T, id, why string) {
	t.Helper()
	testproc.Await(t, id+" gets no clients: "+why, func() bool { return strings.Contains(j.out(id), why) })
}

// await waits for two more checks of the member. The result of the check before has been stored then.
func (m *member) await(t *testing.T) {
	t.Helper()
	before := m.asked.Load()
	testproc.Await(t, "two more checks", func() bool { return m.asked.Load() > before+2 })
}

func TestAnAnswerDecidesAtOnce(t *testing.T) {
	primary, replica := startMember(t, 200), startMember(t, 503)
	j := newJudged(t, Check{MaxSilence: time.Hour})
	j.replace(primary.endpoint("a"), replica.endpoint("b"))
	j.awaitOut(t, "b", "/primary: status 503")
	if why := j.out("a"); why != "" {
		t.Errorf("a gets no clients: %s", why)
	}
	primary.status.Store(503)
	replica.status.Store(204)
	j.awaitOut(t, "a", "status 503")
	j.awaitIn(t, "b")
	primary.status.Store(302) // the check does not follow redirects
	primary.await(t)
	j.awaitOut(t, "a", "status 503") // the text of the first answer stays
}

func TestTheFirstEndpointsGetClientsBeforeTheyAreChecked(t *testing.T) {
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	at := netip.MustParseAddrPort(slow.Listener.Addr().String())
	j := newJudged(t, Check{})
	defer j.Close()
	j.replace(lb.Endpoint{ID: "a", Addr: at})
	if why := j.out("a"); why != "" {
		t.Errorf("a is the first, and gets no clients: %s", why)
	}
	j.replace(lb.Endpoint{ID: "a", Addr: at}, lb.Endpoint{ID: "b", Addr: at})
	if a, b := j.out("a"), j.out("b"); a != "" || b != "not checked yet" {
		t.Errorf("a: got %q; b: got %q, want that it is not checked yet", a, b)
	}
	j.replace(lb.Endpoint{ID: "b", Addr: at})
	if why := j.out("b"); why != "not checked yet" {
		t.Errorf("b: got %q", why)
	}
}

func TestSilenceIsForgivenForAWhile(t *testing.T) {
	m := startMember(t, 200)
	j := newJudged(t, Check{MaxSilence: time.Hour})
	j.replace(m.endpoint("a"))
	m.await(t)
	m.status.Store(0)
	m.await(t)
	if why := j.out("a"); why != "" {
		t.Errorf("a is silent for a moment, and gets no clients: %s", why)
	}
	m.status.Store(503) // any answer counts as an answer
	j.awaitOut(t, "a", "status 503")
}

func TestLongSilenceCounts(t *testing.T) {
	for _, silence := range []time.Duration{time.Millisecond, -1} {
		m := startMember(t, 200)
		j := newJudged(t, Check{MaxSilence: silence})
		j.replace(m.endpoint("a"))
		m.await(t)
		if why := j.out("a"); why != "" {
			t.Fatalf("a answers, and gets no clients: %s", why)
		}
		m.status.Store(0)
		j.awaitOut(t, "a", "no answer")
		m.status.Store(200)
		j.awaitIn(t, "a")
		j.Close()
	}
}

// A fit endpoint may stay without an answer for MaxSilence. An endpoint that has never answered is unfit.
func TestAnEndpointThatNeverAnsweredIsNotFit(t *testing.T) {
	m := startMember(t, 0)
	j := newJudged(t, Check{MaxSilence: time.Hour})
	j.replace(m.endpoint("a"))
	j.awaitOut(t, "a", "no answer")
}

func TestWhatWasForbiddenStaysSoWithAnotherCheck(t *testing.T) {
	m := startMember(t, 503)
	j := newJudged(t, Check{MaxSilence: time.Hour})
	j.replace(m.endpoint("a"))
	j.awaitOut(t, "a", "status 503")
	m.status.Store(0)
	j.Apply(map[string]Check{"db": {Path: "/primary", Interval: 5 * time.Millisecond, Timeout: time.Minute}})
	j.judge()
	if j.out("a") == "" {
		t.Error("a gets clients, because its check is another one")
	}
	j.Apply(nil)
	if why := j.out("a"); why != "" {
		t.Errorf("there is no check any more, and a gets no clients: %s", why)
	}
	asked := m.asked.Load()
	j.judge()
	j.Close()
	if again := m.asked.Load(); again > asked+1 {
		t.Errorf("there is no check any more, and a was asked %d times", again-asked)
	}
}

func TestAnotherPortIsAsked(t *testing.T) {
	m := startMember(t, 200)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	j := newJudged(t, Check{Port: m.endpoint("").Addr.Port(), MaxSilence: -1})
	j.replace(m.endpoint("first"))
	j.replace(m.endpoint("first"), lb.Endpoint{ID: "a", Addr: netip.MustParseAddrPort(l.Addr().String())})
	j.awaitIn(t, "a")
}

// The check of an endpoint at a Unix socket asks that socket, or the check's port on this host.
func TestUnixSocketsAreChecked(t *testing.T) {
	dir, err := os.MkdirTemp("", "l")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := make(chan string, 2)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		w.WriteHeader(503)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	defer serving.Wait()
	defer func() { _ = server.Close() }()
	e := lb.Endpoint{ID: "a", Path: filepath.Join(dir, "s"), Weight: 1}
	c := New(Options{})
	defer c.Close()
	c.Apply(map[string]Check{"s": {Path: "/health", Interval: time.Hour, Timeout: 20 * time.Second}})
	answered, err := c.Probe(t.Context(), "s", e)
	want := "GET http://localhost/health at unix://" + e.Path + ": status 503"
	if host := <-hosts; !answered || err == nil || err.Error() != want || host != "localhost" {
		t.Errorf("got %v, %v for host %q, want %s", answered, err, host, want)
	}
	m := startMember(t, 200)
	c.Apply(map[string]Check{"s": {Path: "/primary", Port: m.endpoint("").Addr.Port(), Interval: time.Hour,
		Timeout: 20 * time.Second}})
	if answered, err := c.Probe(t.Context(), "s", e); !answered || err != nil {
		t.Errorf("by the port: got %v, %v", answered, err)
	}
}

func TestWhatIsWrongHereSaysNothingOfTheEndpoint(t *testing.T) {
	target := &target{service: &service{check: Check{MaxSilence: -1}}, passed: time.Now()}
	for _, err := range []error{context.Canceled, lb.ErrLookups} {
		if target.take(err, time.Now()) {
			t.Errorf("%v: a verdict on the endpoint", err)
		}
	}
	if !target.take(errors.New("no answer"), time.Now()) || !target.verdict.Critical {
		t.Error("no verdict, or not one that the endpoint fails")
	}
}

// Only an answer with a 2xx status means fit. If the check cannot be sent, that is not an answer.
func TestProbe(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	for _, tt := range []struct {
		status       int32
		path, host   string
		port         uint16
		fit, answers bool
	}{
		{status: 200, path: "/primary", fit: true, answers: true},
		{status: 299, path: "/primary", fit: true, answers: true},
		{status: 300, path: "/primary", answers: true},
		{status: 404, path: "/primary", answers: true},
		{status: 500, path: "/primary", answers: true},
		{status: 200, path: "/primary", host: "127.0.0.1", fit: true, answers: true},
		{status: 200, path: "/primary", host: "name.invalid"},
		{status: 200, path: "no slash"},
		{status: 200, path: "/other"},
		{status: 200, path: "/primary", port: 1},
	} {
		e := startMember(t, tt.status).endpoint("a")
		e.Host = tt.host
		err := c.probe(context.Background(), e, Check{Path: tt.path, Port: tt.port, Timeout: testproc.Patience})
		if (err == nil) != tt.fit || isAnswer(err) != tt.answers {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}

// A server that accepts connections and never answers is unfit after Check.Timeout.
func TestNoAnswerInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	j := newJudged(t, Check{})
	j.Apply(map[string]Check{"db": {Path: "/primary", Interval: 5 * time.Millisecond, Timeout: 50 * time.Millisecond}})
	j.replace(lb.Endpoint{ID: "a", Addr: netip.MustParseAddrPort(l.Addr().String())})
	j.awaitOut(t, "a", "no answer")
}

// A header comes before the request, but not at another port than the endpoint's.
func TestCheckSendsItsHeader(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	for _, port := range []uint16{0, at.Port()} {
		heard := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 20)
			_, _ = io.ReadFull(conn, b)
			heard <- string(b)
		}()
		_ = c.probe(t.Context(), lb.Endpoint{ID: "a", Addr: at},
			Check{Path: "/", Port: port, Header: proxyproto.V2, Timeout: testproc.Patience})
		want := string(proxyproto.AppendV2(nil, proxyproto.Header{})) + "GET "
		if port != 0 {
			want = "GET / HTTP/1.1\r\n"
		}
		if got := testproc.Receive(t, "the request", heard); !strings.HasPrefix(got, want) {
			t.Errorf("port %d: got %q, want %q", port, got, want)
		}
	}
}
