package discovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// Excluded returns the instances of a service that its queries leave out by tags, by filter, or because they are not in
// the mesh, sorted by ID. Watches do not receive such instances, so Excluded asks Consul now, twice for each query with
// tags or a filter, and twice for each query with Mesh. Excluded returns the errors of Check.
func (c *Consul) Excluded(ctx context.Context, service string) ([]Instance, error) {
	var out []Instance
	seen := map[string]bool{}
	narrow := func(q *Query) bool { return q.kind() == narrowQuery }
	for _, q := range c.queriesOf(service, narrow) {
		chosen, err := c.once(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range chosen.entries {
			id, _ := entryID(e)
			seen[id] = true
		}
	}
	for _, q := range c.queriesOf(service, narrow) {
		all := q
		all.Tags, all.Filter = nil, ""
		known, err := c.once(ctx, all)
		if err != nil {
			return nil, err
		}
		for _, e := range known.entries {
			if one := convertOne(e, known.rules(&q)); !seen[one.ID] {
				seen[one.ID] = true
				one.Out, one.Detail = excludedBy(&q, e.tags())
				out = append(out, one)
			}
		}
	}
	for _, q := range c.queriesOf(service, func(q *Query) bool { return q.Mesh }) {
		outside, err := c.outside(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, one := range outside {
			if !seen[one.ID] {
				seen[one.ID] = true
				out = append(out, one)
			}
		}
	}
	slices.SortFunc(out, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// tags returns all tags of e.
func (e *entry) tags() []string {
	if e == nil || e.Service == nil {
		return nil
	}
	return e.Service.Tags
}

// queriesOf returns the queries of a service that are of a kind.
func (c *Consul) queriesOf(service string, kind func(*Query) bool) []Query {
	c.mu.Lock()
	f := c.selectors[service]
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var queries []Query
	for _, t := range f.tiers {
		if t.watch != nil && kind(&t.watch.query) {
			queries = append(queries, t.watch.query)
		}
	}
	return queries
}

// excludedBy returns why an instance with these tags is not in Consul's answer to q, with the reason as text. q must be
// normalized. Consul ignores the case of tags.
func excludedBy(q *Query, tags []string) (Out, string) {
	has := func(tag string) bool {
		return slices.ContainsFunc(tags, func(t string) bool { return strings.ToLower(t) == tag })
	}
	lacks := slices.DeleteFunc(slices.Clone(q.Tags), has)
	switch {
	case len(lacks) == 1:
		return OutTags, consul.OneLine(fmt.Sprintf("it does not have the tag %q", lacks[0]))
	case len(lacks) > 1:
		return OutTags, consul.OneLine(fmt.Sprintf("it does not have the tags %q", lacks))
	}
	return OutFilter, consul.OneLine("it does not pass the filter " + q.Filter)
}
