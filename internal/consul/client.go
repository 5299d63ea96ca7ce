package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Client sends requests to one Consul agent. Safe for concurrent use.
//
// It does not use http.Client. That would follow redirections, and send the token to wherever they point. And its
// frames are a quarter of the stack that each waiting query keeps.
type Client struct {
	transport            http.RoundTripper
	base                 url.URL
	address              string // see Address
	token                *token
	auth                 string // "user:password"; empty: none
	namespace, partition string
	maxBody              int64         // bytes of an answer
	gate                 gate          // of queries
	longs                chan struct{} // has an element for each answer longer than SmallBody that is in memory
	buffers              sync.Pool     // of *bytes.Buffer, for such answers

	heard atomic.Pointer[time.Time] // when the agent last answered anything; nil: never

	// single is set if a connection carries one query although it is HTTPS, as behind a reverse proxy with HTTP/1.
	single atomic.Bool
}

// A Request is a query. With an Index it blocks: the agent answers once the state is past that index, or when Wait
// is over.
type Request struct {
	Path       string        // escaped
	Values     url.Values    // nil: none
	Index      uint64        // zero: the query does not block
	Wait       time.Duration // at least a millisecond if there is an Index, and unused if not
	Consistent bool          // the leader makes sure that it is still the leader; only without an Index
	NoIndex    bool          // the answer has no index, as that of a prepared query
	Expect     int           // bytes that the answer may have; zero: unknown
}

// An Answer is what the agent says to a query.
type Answer struct {
	Index    uint64    // of the state that the answer describes; zero if the agent says so, or with Request.NoIndex
	Filtered bool      // something was left out because the token may not see it
	Denies   bool      // what no rule permits is denied: the agent's default policy of ACLs
	Backend  string    // api.QueryBackendStreaming: the agent's own view; otherwise the servers
	Received time.Time // when the answer began to arrive
	Body     []byte    // all of it; not to be used after Free

	free func()
}

// Free gives the memory of Body back. It must be called once.
func (a *Answer) Free() { a.free() }

var (
	errNoIndex = errors.New("answer without X-Consul-Index: not from Consul?")
	errTooLong = errors.New("answer too long")
)

// New returns a client. It reads the files that o names, but does not use the network. The errors are of those files
// and of the address.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	agent, err := parseAddress(o.Address)
	if err != nil {
		return nil, err
	}
	token, err := newToken(o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		transport: o.Transport,
		base:      agent.URL,
		address:   agent.String(),
		token:     token,
		auth:      o.HTTPAuth,
		namespace: o.Namespace,
		partition: o.Partition,
		maxBody:   o.MaxBody,
		longs:     make(chan struct{}, maxLongs),
	}
	if c.transport == nil {
		if c.transport, err = newTransport(agent, o.TLS, o.Logger); err != nil {
			return nil, err
		}
	}
	if c.base.Scheme == "https" { // HTTP/2, as a rule
		c.gate = make(gate, gateWidth)
	}
	return c, nil
}

// Address returns where the agent is, in one form for all ways to write it. It has no secrets.
func (c *Client) Address() string { return c.address }

// HasToken reports whether requests have a token. Without one, the agent uses its default token, if it has one.
func (c *Client) HasToken() bool { return c.token.get() != "" }

// Query sends q, and returns the whole answer. The caller must free it. An answer with a status other than 200 is a
// *StatusError. KindOf classifies all errors.
func (c *Client) Query(ctx context.Context, q Request) (*Answer, error) {
	ctx, leave, err := c.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if q.Index != 0 {
		return c.block(ctx, q)
	}
	return c.send(ctx, q)
}

// block sends a query that blocks. The error is an *OverdueError if the agent cuts it off when it should answer.
func (c *Client) block(ctx context.Context, q Request) (*Answer, error) {
	ctx, end := watchResent(ctx, q.Wait)
	defer end()
	begun := time.Now()
	a, err := c.send(ctx, q)
	if err != nil {
		return nil, overdue(ctx, err, time.Since(begun), q.Wait)
	}
	return a, nil
}

// send sends q, and returns the whole answer.
func (c *Client) send(ctx context.Context, q Request) (*Answer, error) {
	resp, err := c.do(ctx, http.MethodGet, q.Path, c.values(q), nil)
	if err != nil {
		return nil, err
	}
	return c.read(ctx, resp, q)
}

// values returns the URL parameters of q.
func (c *Client) values(q Request) url.Values {
	v := c.enterprise(q.Values)
	switch {
	case q.Index != 0:
		v.Set("index", strconv.FormatUint(q.Index, 10))
		v.Set("wait", strconv.FormatInt(q.Wait.Milliseconds(), 10)+"ms")
	case q.Consistent:
		v.Set("consistent", "1")
	}
	return v
}

// enterprise returns values with the namespace and the partition, which Consul Enterprise has.
func (c *Client) enterprise(values url.Values) url.Values {
	v := url.Values{}
	maps.Copy(v, values)
	if c.namespace != "" {
		v.Set("ns", c.namespace)
	}
	if c.partition != "" {
		v.Set("partition", c.partition)
	}
	return v
}

// read reads the response to q.
func (c *Client) read(ctx context.Context, resp *http.Response, q Request) (*Answer, error) {
	defer resp.Body.Close()
	if err := statusOf(resp); err != nil {
		return nil, err
	}
	var err error
	a := &Answer{
		Filtered: resp.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true",
		Denies:   resp.Header.Get("X-Consul-Default-Acl-Policy") == "deny",
		Backend:  resp.Header.Get("X-Consul-Query-Backend"),
		Received: time.Now(),
	}
	if !q.NoIndex {
		if a.Index, err = strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64); err != nil {
			return nil, errNoIndex
		}
	}
	a.Body, a.free, err = c.body(ctx, resp.Body, q.Expect)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// statusOf returns nil for a response with the status 200, and a *StatusError for others.
func statusOf(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return &StatusError{Code: resp.StatusCode, Text: OneLine(string(text))}
}

// body returns what is in r, and a function to call when it is not needed any more. Expect is how many bytes r may
// have.
//
// Only maxLongs long answers are in memory at once. Without that bound, an agent that has gone mad could fill the
// memory with one answer for each query.
func (c *Client) body(ctx context.Context, r io.Reader, expect int) ([]byte, func(), error) {
	body, err := readBody(r, SmallBody)
	if err != nil || len(body) <= SmallBody {
		return body, noop, err
	}
	select {
	case c.longs <- struct{}{}:
	case <-ctx.Done():
		return nil, noop, ctx.Err()
	}
	buffer, _ := c.buffers.Get().(*bytes.Buffer)
	if buffer == nil {
		buffer = new(bytes.Buffer)
	}
	free := func() {
		buffer.Reset()
		c.buffers.Put(buffer)
		<-c.longs
	}
	buffer.Grow(min(expect+expect/16, int(c.maxBody)) + bytes.MinRead) // so that it need not grow
	buffer.Write(body)
	_, err = buffer.ReadFrom(io.LimitReader(r, c.maxBody+1-int64(len(body))))
	switch {
	case err != nil:
		err = fmt.Errorf("answer broke off: %w", err)
	case int64(buffer.Len()) > c.maxBody:
		err = errTooLong
	}
	if err != nil {
		free()
		return nil, noop, err
	}
	return buffer.Bytes(), free, nil
}

// readBody reads limit bytes of r, and one more if there is more.
func readBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("answer broke off: %w", err)
	}
	return body, nil
}

// Ping returns nil if the agent answers at all. It asks for the root page, which needs no right, and for which the
// agent need not ask a server.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodGet, "/", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Call sends a request that does not block. It sends in as JSON, and decodes the JSON of the answer into out; either
// may be nil. An answer with a status other than 200 is a *StatusError.
func (c *Client) Call(ctx context.Context, method, path string, values url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.do(ctx, method, path, c.enterprise(values), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := statusOf(resp); err != nil || out == nil {
		return err
	}
	answer, free, err := c.body(ctx, resp.Body, 0)
	if err != nil {
		return err
	}
	defer free()
	if TooManyElements(answer) {
		return ErrTooManyElements
	}
	return json.Unmarshal(answer, out)
}

// do sends a request and returns the response, whatever its status. The path is escaped.
func (c *Client) do(
	ctx context.Context, method, path string, values url.Values, body io.Reader,
) (*http.Response, error) {
	req, err := c.request(ctx, method, path, values, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c.heard.Store(&now)
	if resp.ProtoMajor == 1 && c.base.Scheme == "https" {
		c.single.Store(true)
	}
	return resp, nil
}

// request returns the request that do sends.
func (c *Client) request(
	ctx context.Context, method, path string, values url.Values, body io.Reader,
) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path+"?"+values.Encode(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if t := c.token.get(); t != "" {
		req.Header.Set("X-Consul-Token", t)
	}
	if c.auth != "" {
		user, password, _ := strings.Cut(c.auth, ":")
		req.SetBasicAuth(user, password)
	}
	return req, nil
}

// CloseIdle closes the connections that carry no request now.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Multiplexes reports whether one connection carries many queries, as far as is known. That is so for HTTPS until an
// answer comes by HTTP/1.
func (c *Client) Multiplexes() bool { return c.base.Scheme == "https" && !c.single.Load() }

// Silence returns how long ago the agent last answered anything. If it never did, Silence is the longest Duration.
func (c *Client) Silence() time.Duration {
	heard := c.heard.Load()
	if heard == nil {
		return math.MaxInt64
	}
	return time.Since(*heard)
}
