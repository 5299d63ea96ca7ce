package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A client asks one Consul agent. It speaks HTTP itself where api.Client would do in a friendlier world: that one fills what is
// left empty from the environment, reads bodies without end, gives up on the headers at the first that it cannot parse, and reads
// a token file once. Nor does it use http.Client, of which it would want nothing: following a redirection would carry the token to wherever
// that points, and its frames are a quarter of the stack that each waiting query keeps. Safe for concurrent use.
type client struct {
	transport            http.RoundTripper
	base                 url.URL
	token                *token
	auth                 string // "user:password" or empty
	namespace, partition string
	bodyLimit            int64         // bytes
	gate                 gate          // of queries
	long                 chan struct{} // has one for each answer longer than smallBody that is in memory
	buffers              sync.Pool     // of *bytes.Buffer, for those

	heard  atomic.Int64 // when Consul last answered anything, as Unix time in nanoseconds
	single atomic.Bool  // https, but HTTP/1: what is in between, as a reverse proxy, carries one query on a connection
}

// An answer is what Consul says to a query.
type answer struct {
	index    uint64 // of the state that it describes; zero from Consul is kept
	filtered bool   // instances were left out because the token may not see them
	backend  string // streaming: from the agent's view; "blocking-query": from the servers; or empty
	entries  []*entry
	size     int       // bytes of it
	received time.Time // when it began to come
}

// streaming is the backend of answers that an agent has from its own view of the catalog.
const streaming = "streaming"

var (
	errNoIndex = errors.New("answer without X-Consul-Index: not from Consul?")
	errTooLong = errors.New("answer too long")
	errNoList  = errors.New("answer is not a list")
)

func newClient(o ConsulOptions, base url.URL, rt http.RoundTripper) (*client, error) {
	token, err := newToken(o)
	if err != nil {
		return nil, err
	}
	c := &client{
		transport: rt,
		base:      base,
		token:     token,
		auth:      o.HTTPAuth,
		namespace: o.Namespace,
		partition: o.Partition,
		bodyLimit: maxBody,
		long:      make(chan struct{}, maxLong),
	}
	if base.Scheme == "https" { // else, or if that turns out to be HTTP/1, there are slots
		c.gate = make(gate, gateWidth)
	}
	return c, nil
}

// An ask is how a query is asked.
type ask struct {
	index      uint64        // other than zero: Consul answers once its state is past that index, or wait is over
	wait       time.Duration // with an index
	consistent bool          // without an index: the leader makes sure that it still is one
	former     *former       // of the answers to this query; nil: it is not asked again
}

// health asks for the instances that q selects. What is returned besides a nil error is whole: it was read to its end and parsed.
func (c *client) health(ctx context.Context, q *Query, how ask) (answer, error) {
	ctx, leave, err := c.gate.enter(ctx)
	if err != nil {
		return answer{}, err
	}
	defer leave()
	resp, err := c.get(ctx, q.path(), c.values(q, how))
	if err != nil {
		return answer{}, err
	}
	return c.read(ctx, resp, q.Prepared != "", how.former)
}

// values are the URL parameters of q.
func (c *client) values(q *Query, how ask) url.Values {
	values := q.values(how)
	c.enterprise(values)
	return values
}

// read reads the response to a query.
func (c *client) read(ctx context.Context, resp *http.Response, prepared bool, f *former) (answer, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return answer{}, &statusError{code: resp.StatusCode, text: readable(string(text))}
	}
	var err error
	a := answer{
		filtered: resp.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true",
		backend:  cut(resp.Header.Get("X-Consul-Query-Backend"), maxWord),
		received: time.Now(),
	}
	if !prepared {
		if a.index, err = strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64); err != nil {
			return answer{}, errNoIndex
		}
	}
	a.entries, a.size, err = c.decode(ctx, resp.Body, prepared, f)
	return a, err
}

// enterprise adds what only Consul Enterprise knows.
func (c *client) enterprise(values url.Values) {
	if c.namespace != "" {
		values.Set("ns", c.namespace)
	}
	if c.partition != "" {
		values.Set("partition", c.partition)
	}
}

// decode reads the list of entries that is all of r; or, of a prepared query, an object that has the list. It also
// returns how many bytes there were.
func (c *client) decode(ctx context.Context, r io.Reader, prepared bool, f *former) ([]*entry, int, error) {
	body, free, err := c.body(ctx, r, f.expects())
	if err != nil {
		return nil, 0, err
	}
	defer free()
	list := body
	if prepared {
		var result struct{ Nodes json.RawMessage }
		if err := json.Unmarshal(body, &result); err != nil {
			return nil, 0, fmt.Errorf("answer cannot be read: %w", err)
		}
		if list = result.Nodes; len(list) == 0 {
			return nil, 0, errNoList
		}
	}
	entries, err := f.entriesIn(list)
	return entries, len(body), err
}

// body returns what is in r, about so many bytes if it is long, and a function that is to be called when it is not
// needed any more. Few long ones are read at once: an agent that has gone mad, or something that is none, would
// otherwise fill the memory with one for each query.
func (c *client) body(ctx context.Context, r io.Reader, about int) ([]byte, func(), error) {
	body, err := readBody(r, smallBody)
	if err != nil || len(body) <= smallBody {
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

// entriesIn reads one JSON list and nothing after it. A null would be an empty list to encoding/json; here it is an error, as Consul never
// sends it.
func entriesIn(body []byte) ([]*entry, error) {
	if tooMany(body) {
		return nil, errTooMany
	}
	var entries []*entry
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fmt.Errorf("answer cannot be read: %w", err)
	}
	if entries == nil {
		return nil, errNoList
	}
	return entries, nil
}

// ping returns nil if the agent answers at all. The root page is one that it has by itself: nobody else is asked for it, and no
// right is needed.
func (c *client) ping(ctx context.Context) error {
	resp, err := c.get(ctx, "/", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// get returns the response to one request, whatever its status. The path is escaped.
func (c *client) get(ctx context.Context, path string, values url.Values) (*http.Response, error) {
	return c.do(ctx, http.MethodGet, path, values, nil)
}

// do is get with a method and a body.
func (c *client) do(ctx context.Context, method, path string, values url.Values, body io.Reader) (*http.Response, error) {
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
func (c *client) request(ctx context.Context, method, path string, values url.Values, body io.Reader) (*http.Request, error) {
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

// closeIdle closes the connections that no query uses.
func (c *client) closeIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// silence is how long Consul has not answered anything; since ever, if it never did.
func (c *client) silence() time.Duration {
	return time.Since(time.Unix(0, c.heard.Load()))
}
