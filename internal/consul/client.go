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

// A Client sends requests to one Consul agent. The Client is safe for concurrent use.
//
// Client does not use http.Client, which follows redirects and would send the token to their targets. The frames of
// http.Client also use a quarter of the stack of each waiting query.
type Client struct {
	transport            http.RoundTripper
	base                 url.URL
	address              string // see Address
	token                *token
	auth                 string // "user:password"; empty for no basic authentication
	namespace, partition string
	maxBody              int64         // maximum size of an answer, in bytes
	gate                 gate          // limits how many queries look for a connection at once
	longs                chan struct{} // has an element for each answer in memory that is longer than SmallBody
	buffers              sync.Pool     // *bytes.Buffer for long answers

	heard atomic.Pointer[time.Time] // when the agent last answered a request; nil if never

	// single is set if the agent speaks HTTP/1 over HTTPS, for example behind a reverse proxy. A connection then
	// carries one query.
	single atomic.Bool
}

// A Request is a query. A query with an Index blocks: the agent answers once its state is past that index, or when Wait
// has passed.
type Request struct {
	Path       string        // escaped path
	Values     url.Values    // nil for none
	Index      uint64        // zero for a query that does not block
	Wait       time.Duration // at least a millisecond with an Index; unused without
	Consistent bool          // the leader confirms that it is still the leader; only without an Index
	NoIndex    bool          // the answer has no index, for example that of a prepared query
	Expect     int           // expected size of the answer in bytes; zero if unknown
}

// An Answer is the agent's answer to a query.
type Answer struct {
	Index    uint64    // index of the described state; zero if the agent sends zero, or with Request.NoIndex
	Filtered bool      // Consul left something out because the token may not read it
	Denies   bool      // the agent's default ACL policy denies what no rule permits
	Backend  string    // api.QueryBackendStreaming if the agent answers from its own view; otherwise the servers answer
	Received time.Time // when the answer began to arrive
	Body     []byte    // the whole body; not valid after Free

	free func()
}

// Free releases the memory of Body. Free must be called exactly once.
func (a *Answer) Free() { a.free() }

var (
	errNoIndex = errors.New("the answer has no X-Consul-Index header: is this Consul?")
	errTooLong = errors.New("the answer is too long")
)

// New returns a client. New reads the files that o names, but does not use the network. New returns an error if a file
// or the address is invalid.
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
	if c.base.Scheme == "https" { // usually HTTP/2
		c.gate = make(gate, gateWidth)
	}
	return c, nil
}

// Address returns the agent's address without secrets. All spellings of one address give the same result.
func (c *Client) Address() string { return c.address }

// HasToken reports whether the client sends a token. Without a token, the agent uses its default token, if it has one.
func (c *Client) HasToken() bool { return c.token.get() != "" }

// Query sends q and returns the whole answer, which the caller must free. A status other than 200 is a *StatusError.
// KindOf classifies all errors.
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

// block sends a blocking query. block returns an *OverdueError if the agent cuts the query off instead of answering.
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

// send sends q and returns the whole answer.
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

// enterprise returns a copy of values with the client's namespace and partition, which only Consul Enterprise has.
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

// statusOf returns nil for the status 200, and a *StatusError for any other status.
func statusOf(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return &StatusError{Code: resp.StatusCode, Text: OneLine(string(text))}
}

// body reads r to its end. body returns the content, and a function to release the content's memory. The argument
// expect is the expected size in bytes.
//
// At most maxLongs long answers are in memory at once. Without this limit, a broken agent could fill the memory with
// one huge answer for each query.
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
	buffer.Grow(min(expect+expect/16, int(c.maxBody)) + bytes.MinRead) // so that the buffer need not grow
	buffer.Write(body)
	_, err = buffer.ReadFrom(io.LimitReader(r, c.maxBody+1-int64(len(body))))
	switch {
	case err != nil:
		err = fmt.Errorf("the answer ended early: %w", err)
	case int64(buffer.Len()) > c.maxBody:
		err = errTooLong
	}
	if err != nil {
		free()
		return nil, noop, err
	}
	return buffer.Bytes(), free, nil
}

// readBody reads at most limit+1 bytes of r. A longer result than limit shows that r has more.
func readBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("the answer ended early: %w", err)
	}
	return body, nil
}

// Ping returns nil if the agent answers at all. Ping requests the root page, which needs no ACL right and no Consul
// server.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodGet, "/", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Call sends a request that does not block. Call sends in as JSON, and decodes the JSON answer into out; either may be
// nil. A status other than 200 is a *StatusError.
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

// do sends a request and returns the response with any status. The path must be escaped.
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

// CloseIdle closes the connections that carry no request.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Multiplexes reports whether one connection carries many queries, as far as the client knows. Multiplexes returns true
// for HTTPS until an answer comes over HTTP/1.
func (c *Client) Multiplexes() bool { return c.base.Scheme == "https" && !c.single.Load() }

// Silence returns the time since the agent's last answer. If the agent has never answered, Silence returns the longest
// Duration.
func (c *Client) Silence() time.Duration {
	heard := c.heard.Load()
	if heard == nil {
		return math.MaxInt64
	}
	return time.Since(*heard)
}
