package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/lb"
)

// A reply is the reaction of the fake Consul to one request.
type reply func(*http.Request) (*http.Response, error)

// A fake is a Consul that follows a script, for behaviour that a real Consul does not show on demand. After the end of
// a service's script, the fake holds queries, as if nothing changed any more. A fake needs no sockets, so it can run in
// a synctest bubble.
type fake struct {
	mu     sync.Mutex
	script map[string][]reply // by service; for the mesh by "mesh:SERVICE", and for a chain by "chain:SERVICE"
	always reply              // used instead of a script
	ping   reply              // for requests that are not queries; nil: answered
	asked  []asked
}

// An asked is a query that the fake has seen.
type asked struct {
	service, index string
	at             time.Time
	values         url.Values
	header         http.Header
	path           string
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	service, query := scriptOf(req)
	f.mu.Lock()
	do := f.ping
	if query {
		v := req.URL.Query()
		f.asked = append(f.asked, asked{service, v.Get("index"), time.Now(), v, req.Header, req.URL.EscapedPath()})
		do = f.always
		if script := f.script[service]; len(script) > 0 {
			do, f.script[service] = script[0], script[1:]
		} else if do == nil {
			do = hang
		}
	} else if do == nil {
		do = status(301, "")
	}
	f.mu.Unlock()
	return do(req)
}

// scriptOf returns the key of a query in fake.script. scriptOf returns false for requests that are not queries.
func scriptOf(req *http.Request) (key string, query bool) {
	if service, is := strings.CutPrefix(req.URL.Path, "/v1/health/service/"); is {
		return service, true
	}
	if service, is := strings.CutPrefix(req.URL.Path, "/v1/health/connect/"); is {
		return "mesh:" + service, true
	}
	if service, is := strings.CutPrefix(req.URL.Path, "/v1/discovery-chain/"); is {
		return "chain:" + service, true
	}
	return "query", strings.HasPrefix(req.URL.Path, "/v1/query/")
}

func (f *fake) asks() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// indexes lists the indexes of all queries so far; "" is a query without an index.
func (f *fake) indexes() string {
	var all []string
	for _, a := range f.asks() {
		all = append(all, fmt.Sprintf("%q", a.index))
	}
	return strings.Join(all, " ")
}

func response(code int, header map[string]string, body io.Reader) *http.Response {
	h := http.Header{}
	for k, v := range header {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(body)}
}

func status(code int, text string) reply {
	return func(*http.Request) (*http.Response, error) {
		return response(code, nil, strings.NewReader(text)), nil
	}
}

// ok answers with instances, given as "name port".
func ok(index int, instances ...string) reply {
	return raw(fmt.Sprint(index), entriesJSON(instances...))
}

func raw(index, body string) reply {
	return func(*http.Request) (*http.Response, error) {
		return response(200, map[string]string{"X-Consul-Index": index}, strings.NewReader(body)), nil
	}
}

func fails(err error) reply {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func hang(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func after(d time.Duration, then reply) reply {
	return func(req *http.Request) (*http.Response, error) {
		if !consul.Sleep(req.Context(), d, nil) {
			return nil, req.Context().Err()
		}
		return then(req)
	}
}

func filteredEmpty(*http.Request) (*http.Response, error) {
	h := map[string]string{"X-Consul-Index": "30", "X-Consul-Results-Filtered-By-ACLs": "true"}
	return response(200, h, strings.NewReader("[]")), nil
}

// endless sends list items until the client stops reading.
func endless(*http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader("["), &repeat{text: "{},"})
	return response(200, map[string]string{"X-Consul-Index": "30"}, body), nil
}

type repeat struct{ text string }

func (r *repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r.text) <= len(p) {
		n += copy(p[n:], r.text)
	}
	if n == 0 {
		return 0, errors.New("buffer too small")
	}
	return n, nil
}

// truncated ends the body in the middle.
func truncated(*http.Request) (*http.Response, error) {
	body := io.MultiReader(strings.NewReader(`[{"Node":`), &broken{})
	return response(200, map[string]string{"X-Consul-Index": "30"}, body), nil
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func entriesJSON(instances ...string) string {
	var b strings.Builder
	for i, one := range instances {
		name, port, _ := strings.Cut(one, " ")
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":%q,"Port":%s}}`, name, port)
	}
	return "[" + b.String() + "]"
}

// A recorder is a Sink that records updates as lines, for example "web: n/a=10.0.0.1:80".
type recorder struct {
	turnstile turnstile
	mu        sync.Mutex
	lines     []string
	left      []string // departures, as "web: n/a=10.0.0.1:80 critical"
	calls     int
}

func (r *recorder) OnUpdate(updates []lb.Endpoints) {
	defer r.turnstile.enter(updates)()
	runtime.Gosched()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	for _, u := range updates {
		var line strings.Builder
		line.WriteString(u.Service + ":")
		if u.Removed {
			line.WriteString(" removed")
		}
		for _, e := range u.Endpoints {
			line.WriteString(" " + e.ID + "=" + e.Address())
		}
		r.lines = append(r.lines, line.String())
		for _, d := range u.Left {
			r.left = append(r.left, fmt.Sprintf("%s: %s=%s %s", u.Service, d.ID, d.Address(), d.Why))
		}
	}
}

// wantLeft checks which endpoints have left, and why.
func (r *recorder) wantLeft(t *testing.T, left ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.left, left) {
		t.Errorf("left %q, want %q", r.left, left)
	}
}

func (r *recorder) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

func (r *recorder) want(t *testing.T, lines ...string) {
	t.Helper()
	if got := r.got(); !slices.Equal(got, lines) {
		t.Errorf("published %q, want %q", got, lines)
	}
}

// A journal is a log that can be searched.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger(level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: j, Level: level})
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) wantOnce(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if n := strings.Count(j.String(), text); n != 1 {
			t.Errorf("%d log lines with %q, want 1, in:\n%s", n, text, j)
		}
	}
}

// A rig is a running source with a fake Consul.
type rig struct {
	*recorder
	consul *Consul
	fake   *fake
	log    *journal
	cancel context.CancelFunc
	done   chan error
}

// start runs a source with the Consul f, and stops the source when the test ends. If o has no watches, the source
// watches "web".
func start(t *testing.T, f *fake, o ConsulOptions) *rig {
	t.Helper()
	r := startOver(t, f, o)
	r.fake = f
	return r
}

// startOver is start with any transport.
func startOver(t *testing.T, rt http.RoundTripper, o ConsulOptions) *rig {
	t.Helper()
	if o.Watches == nil {
		o.Watches = []Watch{{Service: "web"}}
	}
	r := &rig{recorder: &recorder{}, log: &journal{}, done: make(chan error, 1)}
	o.Logger = r.log.logger(hclog.Info)
	o = o.withDefaults()
	var err error
	if r.consul, err = newConsul(o, clientOver(t, o, rt)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go r.run(ctx)
	t.Cleanup(r.stop)
	return r
}

// bodyLimit is how many bytes an answer may have in tests.
const bodyLimit = 1 << 20

// clientOver returns the client of o with any transport.
func clientOver(t *testing.T, o ConsulOptions, rt http.RoundTripper) *consul.Client {
	t.Helper()
	options := o.client()
	options.Transport, options.MaxBody = rt, bodyLimit
	c, err := consul.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) run(ctx context.Context) { r.done <- r.consul.Run(ctx, r.recorder) }

func (r *rig) stop() {
	r.cancel()
	r.done <- <-r.done // several callers may wait
}

// status returns the status of the only watch.
func (r *rig) status() WatchStatus { return r.consul.Snapshot()[0] }

// partly returns r with the header that says that instances were left out.
func partly(r reply) reply {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := r(req)
		if err == nil {
			resp.Header.Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
		return resp, err
	}
}
