package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Client asks one Consul agent. It speaks HTTP itself where api.Client would do in a friendlier world: that one fills what is
// left empty from the environment, reads bodies without end, gives up on the headers at the first that it cannot parse, and reads
// a token file once. Nor does it use http.Client, of which it would want nothing: following a redirection would carry the token to wherever
// that points, and its frames are a quarter of the stack that each waiting query keeps. Safe for concurrent use.
type Client struct {
	transport            http.RoundTripper
	base                 url.URL
	token                *token
	auth                 string // "user:password" or empty
	namespace, partition string
	bodyLimit            int64         // bytes
	gate                 gate          // of queries
	long                 chan struct{} // has one for each answer longer than SmallBody that is in memory
	buffers              sync.Pool     // of *bytes.Buffer, for those

	heard  atomic.Int64 // when Consul last answered anything, as Unix time in nanoseconds
	single atomic.Bool  // https, but HTTP/1: what is in between, as a reverse proxy, carries one query on a connection
}

// A Request is a query.
type Request struct {
	Path   string // escaped
	Values url.Values

	Index      uint64        // other than zero: Consul answers once its state is past that index, or Wait is over
	Wait       time.Duration // with an index
	Consistent bool          // without an index: the leader makes sure that it still is one
	NoIndex    bool          // the answer has none
	Expect     int           // bytes that the answer may have; zero: unknown
}

// An Answer is what Consul says to a query.
type Answer struct {
	Index    uint64    // of the state that it describes; zero from Consul is kept
	Filtered bool      // something was left out because the token may not see it
	Backend  string    // Streaming: from the agent's view; "blocking-query": from the servers; or empty
	Received time.Time // when it began to come
	Body     []byte    // until Free

	free func()
}

// Free ends the use of Body.
func (a *Answer) Free() { a.free() }

// Streaming is the backend of answers that an agent has from its own view of the catalog.
const Streaming = "streaming"

var (
	errNoIndex = errors.New("answer without X-Consul-Index: not from Consul?")
	errTooLong = errors.New("answer too long")
)

// New returns a client. It reads the files that o names, but does not use the network.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	target, err := parseTarget(o.Address)
	if err != nil {
		return nil, err
	}
	token, err := newToken(o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		transport: o.Transport,
		base:      target.base,
		token:     token,
		auth:      o.HTTPAuth,
		namespace: o.Namespace,
		partition: o.Partition,
		bodyLimit: o.MaxBody,
		long:      make(chan struct{}, maxLong),
	}
	if c.transport == nil {
		if c.transport, err = newTransport(target, o.TLS, o.Logger); err != nil {
			return nil, err
		}
	}
	if c.base.Scheme == "https" { // else, or if that turns out to be HTTP/1, there are slots
		c.gate = make(gate, gateWidth)
	}
	return c, nil
}

// Query sends q. What is returned besides a nil error is whole, and is to be freed.
func (c *Client) Query(ctx context.Context, q Request) (*Answer, error) {
	ctx, leave, err := c.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	resp, err := c.do(ctx, http.MethodGet, q.Path, c.values(q), nil)
	if err != nil {
		return nil, err
	}
	return c.read(ctx, resp, q)
}

// values are the URL parameters of q.
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

// enterprise returns values and what only Consul Enterprise knows.
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

// read reads the response to a query.
func (c *Client) read(ctx context.Context, resp *http.Response, q Request) (*Answer, error) {
	defer resp.Body.Close()
	if err := statusOf(resp); err != nil {
		return nil, err
	}
	var err error
	a := &Answer{
		Filtered: resp.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true",
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

// statusOf returns the error that a response is.
func statusOf(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return &StatusError{Code: resp.StatusCode, Text: OneLine(string(text))}
}

// body returns what is in r, about so many bytes if it is long, and a function that is to be called when it is not
// needed any more. Few long ones are read at once: an agent that has gone mad, or something that is none, would
// otherwise fill the memory with one for each query.
func (c *Client) body(ctx context.Context, r io.Reader, about int) ([]byte, func(), error) {
	body, err := readBody(r, SmallBody)
	if err != nil || len(body) <= SmallBody {
		return body, nothing, err
	}
	select {
	case c.long <- struct{}{}:
	case <-ctx.Done():
		return nil, nothing, ctx.Err()
	}
	buffer, _ := c.buffers.Get().(*bytes.Buffer)
	if buffer == nil {
		buffer = new(bytes.Buffer)
	}
	free := func() {
		buffer.Reset()
		c.buffers.Put(buffer)
		<-c.long
	}
	buffer.Grow(min(about+about/16, int(c.bodyLimit)) + bytes.MinRead) // or it would be copied as it grows
	buffer.Write(body)
	_, err = buffer.ReadFrom(io.LimitReader(r, c.bodyLimit+1-int64(len(body))))
	switch {
	case err != nil:
		err = fmt.Errorf("answer broke off: %w", err)
	case int64(buffer.Len()) > c.bodyLimit:
		err = errTooLong
	}
	if err != nil {
		free()
		return nil, nothing, err
	}
	return buffer.Bytes(), free, nil
}

// readBody reads limit bytes, and one more if there are more.
func readBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("answer broke off: %w", err)
	}
	return body, nil
}

// Ping returns nil if the agent answers at all. The root page is one that it has by itself: nobody else is asked for it, and no
// right is needed.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodGet, "/", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Call has the agent do something, and decodes the JSON of its answer into out. In is sent as JSON; nil: nothing. A nil out takes nothing.
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
	if TooMany(answer) {
		return ErrTooMany
	}
	return json.Unmarshal(answer, out)
}

// do returns the response to one request, whatever its status. The path is escaped.
func (c *Client) do(ctx context.Context, method, path string, values url.Values, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, method, path, values, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	c.heard.Store(time.Now().UnixNano())
	if resp.ProtoMajor == 1 && c.base.Scheme == "https" {
		c.single.Store(true)
	}
	return resp, nil
}

// request returns what do sends.
func (c *Client) request(ctx context.Context, method, path string, values url.Values, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path+"?"+values.Encode(), body)
	if err != nil {
		return nil, err
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

// CloseIdle closes the connections that no query uses.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Multiplexes tells whether one connection carries many queries, as far as is known.
func (c *Client) Multiplexes() bool { return c.base.Scheme == "https" && !c.single.Load() }

// Silence is how long Consul has not answered anything; since ever, if it never did.
func (c *Client) Silence() time.Duration {
	return time.Since(time.Unix(0, c.heard.Load()))
}
