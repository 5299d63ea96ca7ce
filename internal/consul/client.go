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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/hostport"
)

// A Client sends requests to Consul: to one agent or server at a time, of those that the Options name. The Client is
// safe for concurrent use.
//
// Client does not use http.Client, which follows redirects and would send the token to their targets. The frames of
// http.Client also use a quarter of the stack of each waiting query.
type Client struct {
	options              Options             // with defaults
	files                *certificates.Files // nil without TLS
	token                *token
	namespace, partition string
	longs                chan struct{} // has an element for each answer in memory that is longer than SmallBody
	buffers              sync.Pool     // *bytes.Buffer for long answers
	log                  hclog.Logger

	agents  []hostport.Agent // all addresses; at least one, and never changed
	movable bool             // there may be several sites
	lookup  lookup
	at      atomic.Pointer[site]
	doubts  chan doubt    // the latest doubt that Run has not handled yet
	runs    chan struct{} // has an element while Run is at work
	begun   atomic.Bool   // Run has been at work
	turn    chan struct{} // has an element while a goroutine may move the client

	leastStay time.Duration // see calm; only the holder of turn uses it

	mu        sync.Mutex      // guards the following fields
	stayUntil time.Time       // the client does not move by itself before this time
	cluster   Cluster         // where the client is, as far as it is known
	learnt    bool            // cluster is complete
	told      map[string]bool // addresses of other clusters that were logged
	moved     chan struct{}   // see Moved
	listeners []*func(Move)
}

// A Request is a query. A query with an Index blocks: the agent answers once its state is past that index, or when Wait
// has passed.
type Request struct {
	Path       string        // escaped path
	Values     url.Values    // nil for none; a namespace (ns) or partition has precedence over that of the client
	Index      uint64        // zero for a query that does not block
	Site       uint64        // Answer.Site of the answer that had the Index; unused without
	Wait       time.Duration // at least a millisecond with an Index; unused without
	Consistent bool          // the leader confirms that it is still the leader; only without an Index
	NoIndex    bool          // the answer has no index, for example that of a prepared query
	Expect     int           // expected size of the answer in bytes; zero if unknown
}

// An Answer is the agent's answer to a query.
type Answer struct {
	Index    uint64    // index of the described state; zero if the agent sends zero, or with Request.NoIndex
	Site     uint64    // number of the site that has answered; an index means nothing to other sites
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
// or an address is invalid.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	c := &Client{
		options: o, log: o.Logger, namespace: o.Namespace, partition: o.Partition,
		longs:  make(chan struct{}, maxLongs),
		lookup: lookUp,
		doubts: make(chan doubt, 1), runs: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		told: map[string]bool{}, moved: make(chan struct{}),
	}
	for _, address := range append([]string{o.Address}, o.More...) {
		agent, err := parseAddress(address)
		if err != nil {
			return nil, err
		}
		c.agents = append(c.agents, agent)
		if agent.URL.Scheme != c.agents[0].URL.Scheme {
			return nil, errors.New("consul address: some addresses are https, and some are not")
		}
	}
	var err error
	if c.token, err = newToken(o); err != nil {
		return nil, err
	}
	first := c.agents[0]
	if first.URL.Scheme == "https" && o.Transport == nil {
		if c.files, err = certificates.New(o.TLS, o.Logger); err != nil {
			return nil, fmt.Errorf("TLS to consul: %w", err)
		}
	}
	c.movable = len(c.agents) > 1 || isNamed(first)
	s := c.newSite(first, nil)
	s.since = time.Now()
	c.at.Store(s)
	return c, nil
}

// Address returns the present address of Consul without secrets. All spellings of one address give the same result.
func (c *Client) Address() string { return c.at.Load().agent.String() }

// Knows reports whether an address, as Address returns it, is one of the client's.
func (c *Client) Knows(address string) bool {
	return slices.ContainsFunc(c.agents, func(a hostport.Agent) bool { return a.String() == address })
}

// HasToken reports whether the client sends a token. Without a token, the agent uses its default token, if it has one.
func (c *Client) HasToken() bool { return c.token.get() != "" }

// Query sends q and returns the whole answer, which the caller must free. A status other than 200 is a *StatusError.
// If the client moves meanwhile, or has moved since the answer with the Index of q, the error is ErrMoved. KindOf
// classifies all errors.
func (c *Client) Query(ctx context.Context, q Request) (*Answer, error) {
	s := c.at.Load()
	if q.Index != 0 && q.Site != s.number {
		return nil, ErrMoved
	}
	var a *Answer
	err := c.judge(ctx, s, func(ctx context.Context) (err error) {
		a, err = c.queryAt(ctx, s, q)
		return err
	})
	return a, err
}

// queryAt sends q to s when the gate lets it pass, and returns the whole answer.
func (c *Client) queryAt(ctx context.Context, s *site, q Request) (*Answer, error) {
	ctx, leave, err := s.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if q.Index != 0 {
		return c.block(ctx, s, q)
	}
	return c.send(ctx, s, q)
}

// block sends a blocking query. block returns an *OverdueError if the agent cuts the query off instead of answering.
func (c *Client) block(ctx context.Context, s *site, q Request) (*Answer, error) {
	ctx, end := watchResent(ctx, q.Wait)
	defer end()
	begun := time.Now()
	a, err := c.send(ctx, s, q)
	if err != nil {
		return nil, overdue(ctx, err, time.Since(begun), q.Wait)
	}
	return a, nil
}

// send sends q and returns the whole answer.
func (c *Client) send(ctx context.Context, s *site, q Request) (*Answer, error) {
	resp, err := c.doAt(ctx, s, http.MethodGet, q.Path, c.values(q), nil)
	if err != nil {
		return nil, err
	}
	a, err := c.read(ctx, resp, q)
	if err != nil {
		return nil, err
	}
	a.Site = s.number
	return a, nil
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

// enterprise returns a copy of values with the client's namespace and partition, which only Consul Enterprise has. What
// values have already stays.
func (c *Client) enterprise(values url.Values) url.Values {
	v := url.Values{}
	maps.Copy(v, values)
	if c.namespace != "" && !v.Has("ns") {
		v.Set("ns", c.namespace)
	}
	if c.partition != "" && !v.Has("partition") {
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
	buffer.Grow(min(expect+expect/16, int(c.options.MaxBody)) + bytes.MinRead) // so that the buffer need not grow
	buffer.Write(body)
	_, err = buffer.ReadFrom(io.LimitReader(r, c.options.MaxBody+1-int64(len(body))))
	switch {
	case err != nil:
		err = fmt.Errorf("the answer ended early: %w", err)
	case int64(buffer.Len()) > c.options.MaxBody:
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
	resp, err := c.doAt(ctx, c.at.Load(), http.MethodGet, "/", nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Call sends a request that does not block. Call sends in as JSON, and decodes the JSON answer into out; either may be
// nil. A status other than 200 is a *StatusError.
func (c *Client) Call(ctx context.Context, method, path string, values url.Values, in, out any) error {
	s := c.at.Load()
	return c.judge(ctx, s, func(ctx context.Context) error {
		return c.callAt(ctx, s, method, path, values, in, out)
	})
}

// callAt sends the request of Call to s.
func (c *Client) callAt(
	ctx context.Context, s *site, method, path string, values url.Values, in, out any,
) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.doAt(ctx, s, method, path, c.enterprise(values), body)
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

// doAt sends a request to s, and returns the response with any status. The path must be escaped.
func (c *Client) doAt(
	ctx context.Context, s *site, method, path string, values url.Values, body io.Reader,
) (*http.Response, error) {
	req, err := c.request(ctx, method, s.base.String()+path+"?"+values.Encode(), body)
	if err != nil {
		return nil, err
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	s.hasHeard()
	if resp.ProtoMajor == 1 && s.base.Scheme == "https" {
		s.single.Store(true)
	}
	return resp, nil
}

// request returns a request with the client's credentials.
func (c *Client) request(ctx context.Context, method, address string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if t := c.token.get(); t != "" {
		req.Header.Set("X-Consul-Token", t)
	}
	if auth := c.options.HTTPAuth; auth != "" {
		user, password, _ := strings.Cut(auth, ":")
		req.SetBasicAuth(user, password)
	}
	return req, nil
}

// CloseIdle closes the connections that carry no request.
func (c *Client) CloseIdle() { c.at.Load().closeIdle() }

// Multiplexes reports whether one connection carries many queries, as far as the client knows. Multiplexes returns true
// for HTTPS until an answer comes over HTTP/1.
func (c *Client) Multiplexes() bool {
	s := c.at.Load()
	return s.base.Scheme == "https" && !s.single.Load()
}

// Silence returns the time since the last answer from the present address. If there was none, Silence returns the
// longest Duration.
func (c *Client) Silence() time.Duration {
	heard := c.at.Load().heard.Load()
	if heard == nil {
		return math.MaxInt64
	}
	return time.Since(*heard)
}
