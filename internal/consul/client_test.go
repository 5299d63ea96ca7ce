package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// serve starts a server and returns a client of it.
func serve(t *testing.T, o Options, handle http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	o.Address = server.URL
	return startClient(t, o)
}

// answer returns a handler that answers with an index and a body.
func answer(index, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", index)
		_, _ = io.WriteString(w, body)
	}
}

func TestRequestsCarryWhatTheOptionsSay(t *testing.T) {
	seen := make(chan *http.Request, 10)
	o := Options{Token: "secret", HTTPAuth: "user:pass:word", Namespace: "team", Partition: "part"}
	c := serve(t, o, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		answer("7", "[]")(w, r)
	})
	for _, tt := range []struct {
		name string
		q    Request
		want string
	}{
		{"no index", Request{Path: "/a", Wait: time.Minute}, "/a?ns=team&partition=part"},
		{"index", Request{Path: "/a%2Fb", Index: 5, Wait: time.Minute},
			"/a%2Fb?index=5&ns=team&partition=part&wait=60000ms"},
		{"leader", Request{Path: "/a", Consistent: true}, "/a?consistent=1&ns=team&partition=part"},
		{"values", Request{Path: "/a", Values: map[string][]string{"tag": {"x", "y"}}},
			"/a?ns=team&partition=part&tag=x&tag=y"},
	} {
		a, err := c.Query(t.Context(), tt.q)
		must(t, err)
		a.Free()
		r := <-seen
		user, password, _ := r.BasicAuth()
		if r.RequestURI != tt.want || r.Header.Get("X-Consul-Token") != "secret" || user != "user" ||
			password != "pass:word" {
			t.Errorf("%s: asked %s, with token %q, user %q, password %q; want %s",
				tt.name, r.RequestURI, r.Header.Get("X-Consul-Token"), user, password, tt.want)
		}
		if len(tt.q.Values) > 1 {
			t.Errorf("%s: the values of the caller were changed: %v", tt.name, tt.q.Values)
		}
	}
}

func TestAnswersAreReadWhole(t *testing.T) {
	long := strings.Repeat("x", SmallBody+1)
	for _, tt := range []struct {
		name   string
		q      Request
		handle http.HandlerFunc
		index  uint64
		body   string
		err    string // part of the error; empty for none
	}{
		{"short", Request{}, answer("7", "[]"), 7, "[]", ""},
		{"long", Request{}, answer("7", long), 7, long, ""},
		{"long, as expected", Request{Expect: len(long)}, answer("7", long), 7, long, ""},
		{"index zero is kept", Request{}, answer("0", "[]"), 0, "[]", ""},
		{"no index", Request{}, answer("", "[]"), 0, "", "no X-Consul-Index"},
		{"an index that is no number", Request{}, answer("-1", "[]"), 0, "", "no X-Consul-Index"},
		{"no index is wanted", Request{NoIndex: true}, answer("", "{}"), 0, "{}", ""},
		{"too long", Request{}, answer("7", strings.Repeat("x", 2*SmallBody+1)), 0, "", "answer is too long"},
		{"status", Request{}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no\nleader", 500) }, 0, "",
			"consul answered 500: no leader"},
		{"status without text", Request{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 0, "",
			"consul answered 503 Service Unavailable"},
		{"redirection", Request{}, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusFound)
		}, 0, "", "consul answered 302"},
		{"broken off", Request{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			answer("7", "[]")(w, r)
		}, 0, "", "answer ended early"},
		{"broken off, long", Request{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(2*len(long)))
			answer("7", long)(w, r)
		}, 0, "", "answer ended early"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, Options{MaxBody: 2 * SmallBody}, tt.handle)
			a, err := c.Query(t.Context(), tt.q)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Fatalf("error %v, want %q", err, tt.err)
			case err == nil:
				if a.Index != tt.index || string(a.Body) != tt.body {
					t.Errorf("index %d, %d bytes, want %d, %d", a.Index, len(a.Body), tt.index, len(tt.body))
				}
				a.Free()
			}
			if n := len(c.longs); n != 0 {
				t.Errorf("%d long answers are in memory after all were freed", n)
			}
		})
	}
}

// Only a few of many concurrent long answers are in memory at once.
func TestFewLongAnswersAreInMemory(t *testing.T) {
	c := serve(t, Options{}, answer("7", strings.Repeat("x", SmallBody+1)))
	var inMemory, most atomic.Int64
	var running sync.WaitGroup
	for range 20 {
		running.Go(func() {
			a, err := c.Query(t.Context(), Request{Path: "/"})
			if err != nil {
				t.Error(err)
				return
			}
			n := inMemory.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			inMemory.Add(-1)
			a.Free()
		})
	}
	running.Wait()
	if n := most.Load(); n > maxLongs {
		t.Errorf("%d long answers were in memory at once, want at most %d", n, maxLongs)
	}

	var held []*Answer
	for range maxLongs {
		a, err := c.Query(t.Context(), Request{Path: "/"})
		must(t, err)
		held = append(held, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Query(ctx, Request{Path: "/"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more long answer: %v, want the context's error", err)
	}
	for _, a := range held {
		a.Free()
	}
}

func TestAnswersSayWhereTheyAreFrom(t *testing.T) {
	c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Consul-Query-Backend", api.QueryBackendStreaming)
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
		answer("7", "[]")(w, r)
	})
	before := time.Now()
	a, err := c.Query(t.Context(), Request{Path: "/"})
	must(t, err)
	defer a.Free()
	if a.Backend != api.QueryBackendStreaming || !a.Filtered ||
		a.Received.Before(before) || a.Received.After(time.Now()) {
		t.Errorf("got %+v", a)
	}
}

func TestCall(t *testing.T) {
	type thing struct{ Name string }
	c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/tiny":
			_, _ = io.WriteString(w, "["+strings.Repeat("{},", 10_000)+"{}]")
		default:
			http.Error(w, "no such thing", http.StatusNotFound)
		}
	})
	var got thing
	if err := c.Call(t.Context(), http.MethodPut, "/echo", nil, thing{"x"}, &got); err != nil || got.Name != "x" {
		t.Errorf("got %+v, %v", got, err)
	}
	must(t, c.Call(t.Context(), http.MethodPut, "/echo", nil, nil, nil))
	if err := c.Call(t.Context(), http.MethodPut, "/echo", nil, nil, &got); err == nil {
		t.Error("an empty answer was decoded")
	}
	if err := c.Call(t.Context(), http.MethodPut, "/echo", nil, func() {}, nil); err == nil {
		t.Error("a function was sent as JSON")
	}
	var things []thing
	if err := c.Call(t.Context(), http.MethodGet, "/tiny", nil, nil, &things); !errors.Is(err, ErrTooManyElements) {
		t.Errorf("many tiny elements: %v, want %v", err, ErrTooManyElements)
	}
	wantStatus(t, "unknown", c.Call(t.Context(), http.MethodGet, "/unknown", nil, nil, &got), http.StatusNotFound)
}

// If an agent speaks HTTP/1 over TLS, for example through a reverse proxy, a connection carries one query.
func TestMultiplexes(t *testing.T) {
	for name, tt := range map[string]struct {
		tls, http2    bool
		before, after bool
	}{
		"plain":               {false, false, false, false},
		"TLS with HTTP/2":     {true, true, true, true},
		"TLS without HTTP/2":  {true, false, true, false},
		"plain despite HTTP2": {false, true, false, false},
	} {
		server := httptest.NewUnstartedServer(answer("7", "[]"))
		server.EnableHTTP2 = tt.http2
		if tt.tls {
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		c := startClient(t, Options{Address: server.URL, TLS: TLSOptions{InsecureSkipVerify: true}})
		if c.Silence() < time.Hour {
			t.Errorf("%s: silent for %v before anything was asked", name, c.Silence())
		}
		before := c.Multiplexes()
		must(t, c.Ping(t.Context()))
		if before != tt.before || c.Multiplexes() != tt.after {
			t.Errorf("%s: multiplexes %v, then %v, want %v, %v", name, before, c.Multiplexes(), tt.before, tt.after)
		}
		if c.Silence() > time.Hour {
			t.Errorf("%s: silent for %v after an answer", name, c.Silence())
		}
	}
}

// The client does not follow redirects, because the token must not reach their target.
func TestRedirectionsAreNotFollowed(t *testing.T) {
	var asked atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer other.Close()
	c := serve(t, Options{Token: "secret", Logger: hclog.NewNullLogger()},
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusFound)
		})
	wantStatus(t, "a redirection", c.Call(t.Context(), http.MethodGet, "/", nil, nil, nil), http.StatusFound)
	must(t, c.Ping(t.Context()))
	if n := asked.Load(); n != 0 {
		t.Errorf("the redirection was followed %d times", n)
	}
}

func TestPeeringStates(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   string // part of the error; empty for none
		kind   Kind
	}{
		{200, `{"State": "ACTIVE"}`, "", 0},
		{200, `{"State": "FAILING"}`, "", 0},
		{200, `{"State": "TERMINATED"}`, "the other side has deleted it", Unable},
		{200, `{"State": "ESTABLISHING"}`, "is establishing and brings no instances", Unable},
		{404, "", "consul has no cluster peering \"far\"", Unable},
		{403, "", "", 0},
		{500, "No cluster leader", "read cluster peering \"far\": consul answered 500", Lost},
		{200, "<html>", "read cluster peering", Lost},
	} {
		c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/peering/far" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})
		err := c.Peering(t.Context(), "far")
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) || KindOf(err) != tt.kind {
			t.Errorf("%d %s: got %v of kind %d, want %q of kind %d",
				tt.status, tt.body, err, KindOf(err), tt.want, tt.kind)
		}
	}
}

func TestMissingRight(t *testing.T) {
	const both, no = `[{"Allow": true}]`, `[{"Allow": false}]`
	for _, tt := range []struct{ allowed, nodes, want string }{
		{both, "[{}]", "node:read for the nodes that the instances are on"},
		{both, "[]", "node:read"},
		{both, "", "node:read"},
		{no, "[{}]", `service:read for "web"`},
		{no, "[]", `service:read for "web", and node:read`},
		{no, "", `service:read for "web"`},
		{"", "[{}]", "service:read or node:read"},
		{"[]", "[{}]", "service:read or node:read"},
	} {
		c := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			body := tt.nodes
			if r.URL.Path == "/v1/internal/acl/authorize" {
				body = tt.allowed
			}
			if body == "" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			if r.URL.Query().Get("dc") != "dc2" {
				t.Errorf("asked %s", r.URL)
			}
			_, _ = io.WriteString(w, body)
		})
		if got := c.MissingRight(t.Context(), "web", "dc2"); got != tt.want {
			t.Errorf("allowed %s, nodes %s: got %q, want %q", tt.allowed, tt.nodes, got, tt.want)
		}
		if got, want := c.MissingRight(t.Context(), "", "dc2"), "service:read or node:read"; got != want {
			t.Errorf("without a service: got %q, want %q", got, want)
		}
	}
}
