package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// An ask is how a query is asked.
type ask struct {
	index      uint64        // other than zero: Consul answers once its state is past that index, or wait is over
	wait       time.Duration // with an index
	consistent bool          // without an index: the leader makes sure that it still is one
	former     *former       // of the answers to this query; nil: it is not asked again
}

// An answer is what Consul says to a query.
type answer struct {
	index    uint64 // of the state that it describes; zero from Consul is kept
	filtered bool   // instances were left out because the token may not see them
	backend  string // consul.Streaming: from the agent's view; "blocking-query": from the servers; or empty
	entries  []*entry
	size     int       // bytes of it
	received time.Time // when it began to come
}

var errNoList = errors.New("answer is not a list")

// health asks for the instances that q selects. What is returned besides a nil error is whole: it was read to its end and parsed.
func (c *Consul) health(ctx context.Context, q *Query, how ask) (answer, error) {
	prepared := q.Prepared != ""
	resp, err := c.client.Query(ctx, consul.Request{
		Path: q.path(), Values: q.values(),
		Index: how.index, Wait: how.wait, Consistent: how.consistent,
		NoIndex: prepared, Expect: how.former.expects(),
	})
	if err != nil {
		return answer{}, err
	}
	defer resp.Free()
	a := answer{
		index: resp.Index, filtered: resp.Filtered, backend: cut(resp.Backend, maxWord),
		size: len(resp.Body), received: resp.Received,
	}
	a.entries, err = decode(resp.Body, prepared, how.former)
	return a, err
}

// decode reads the list of entries that is all of body; or, of a prepared query, an object that has the list.
func decode(body []byte, prepared bool, f *former) ([]*entry, error) {
	if prepared {
		var result struct{ Nodes json.RawMessage }
		if err := json.Unmarshal(body, &result); err != nil {
			return nil, fmt.Errorf("answer cannot be read: %w", err)
		}
		if body = result.Nodes; len(body) == 0 {
			return nil, errNoList
		}
	}
	return f.entriesIn(body)
}

// entriesIn reads one JSON list and nothing after it. A null would be an empty list to encoding/json; here it is an error, as Consul never
// sends it.
func entriesIn(body []byte) ([]*entry, error) {
	if consul.TooMany(body) {
		return nil, consul.ErrTooMany
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
