package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An ask holds the parameters of one query.
type ask struct {
	index      uint64        // Consul answers once its state is past index, or when wait is over; zero: at once
	site       uint64        // see consul.Request.Site; only with an index
	wait       time.Duration // only with an index
	consistent bool          // the leader confirms that it is still the leader; only without an index
	reuse      *parser       // parser of the answers to this query; nil: the query is sent once
}

// An answer is Consul's answer to a query for instances.
type answer struct {
	index    uint64 // index of the described state; may be zero
	site     uint64 // see consul.Answer.Site
	filtered bool   // Consul left out instances that the token may not see
	denies   bool   // see consul.Answer.Denies
	backend  string // see consul.Answer.Backend; shortened
	entries  []*entry
	here     ownNode // the agent's node, if an entry needs it
	domain   string  // the mesh's trust domain, if an entry needs it
	chain    *discoveryChain
	size     int       // in bytes
	received time.Time // when the answer began to arrive
}

var errNoList = errors.New("answer is not a list")

// health asks Consul for the instances that q selects, or for the discovery chain. If the error is nil, health has read
// and parsed the whole answer.
func (c *Consul) health(ctx context.Context, q *Query, how ask) (answer, error) {
	prepared := q.Prepared != ""
	resp, err := c.client.Query(ctx, consul.Request{
		Path: q.path(), Values: q.values(),
		Index: how.index, Site: how.site, Wait: how.wait, Consistent: how.consistent,
		NoIndex: prepared, Expect: how.reuse.expects(),
	})
	if err != nil {
		return answer{}, err
	}
	defer resp.Free()
	a := answer{
		index: resp.Index, site: resp.Site, filtered: resp.Filtered, denies: resp.Denies,
		backend: cut(resp.Backend, maxWord), size: len(resp.Body), received: resp.Received,
	}
	if q.chain {
		a.chain, err = chainIn(resp.Body)
		return a, err
	}
	if a.entries, err = decode(resp.Body, q, how.reuse); err != nil {
		return a, err
	}
	switch {
	case len(q.SocketPaths) > 0 && slices.ContainsFunc(a.entries, hasSocket):
		a.here = c.here.find(ctx, c.client)
	case q.Prefer.needsAgent():
		a.here = c.here.recent(ctx, c.client)
	}
	if q.Mesh && q.sni == "" && slices.ContainsFunc(a.entries, isGateway) {
		if a.domain = c.origins.trustDomain(ctx); a.domain == "" {
			return a, errNoDomain
		}
	}
	return a, nil
}

// rules returns which instances of the answer may be endpoints for q.
func (a *answer) rules(q *Query) rules {
	r := rules{statuses: q.Statuses, socketPaths: q.SocketPaths, here: a.here, port: q.Port,
		prefer: q.Prefer}
	if q.Mesh {
		r.mesh = &meshRule{service: q.Service, sni: q.sni, domain: a.domain}
	}
	return r
}

// instances converts the entries of the answer to q.
func (a *answer) instances(q *Query) instances { return convert(a.entries, a.rules(q)) }

// decode parses an answer to q. The answer is a list of entries or, for a prepared query, an object with such a list. A
// nil f parses like any other, but trims nothing.
func decode(body []byte, q *Query, f *parser) ([]*entry, error) {
	if q.Prepared != "" {
		var result struct{ Nodes json.RawMessage }
		if err := json.Unmarshal(body, &result); err != nil {
			return nil, fmt.Errorf("answer cannot be read: %w", err)
		}
		if body = result.Nodes; len(body) == 0 {
			return nil, errNoList
		}
	}
	entries, err := f.entriesIn(body)
	if f == nil && err == nil {
		err = q.fields().resolveAll(entries, body)
	}
	return entries, err
}

// entriesIn parses one JSON list with nothing after it. A null is an error, because Consul never sends it, and
// encoding/json would treat it as an empty list.
func entriesIn(body []byte) ([]*entry, error) {
	if consul.TooManyElements(body) {
		return nil, consul.ErrTooManyElements
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
