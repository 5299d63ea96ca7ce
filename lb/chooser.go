package lb

import "net/netip"

// A chooser picks from some members of a service by a policy, without regard to stickiness. A chooser never changes,
// except that its policy remembers what it has picked; an update replaces the chooser.
type chooser struct {
	roster *roster

	// Only the fields of the current policy are set; the others are nil. Updates change the rotations in place.
	rotation *rotation
	retries  *rotation // for clients that have tried an endpoint; nil if there are more than manyMembers
	least    *leastConnections
	random   *randomTwo
	hash     *sourceHash
}

// newChooser returns a chooser of the members by policy p. It goes on where old was.
func newChooser(g *group, p Policy, members []*Member, old chooser) chooser {
	c := chooser{roster: newRoster(g, members)}
	switch p {
	case PolicyLeastConnections:
		c.least = &leastConnections{roster: c.roster}
		if old.least != nil {
			c.least.virtualTime.Store(old.least.virtualTime.Load())
		}
	case PolicyRandomTwo:
		c.random = &randomTwo{c.roster}
	case PolicySourceHash:
		c.hash = newSourceHash(c.roster)
	default:
		if c.rotation = old.rotation; c.rotation == nil {
			c.rotation = &rotation{}
		}
		c.rotation.replace(members)
		if c.roster.isLarge() {
			break
		}
		if c.retries = old.retries; c.retries == nil {
			c.retries = &rotation{}
		}
		c.retries.replace(members)
	}
	return c
}

// choose returns the member that the policy picks; nil if no member may serve.
func (c *chooser) choose(src netip.Addr, q *query) *Member {
	switch {
	case c.least != nil:
		return c.least.pick(q)
	case c.random != nil:
		return c.random.pick(q)
	case c.hash != nil:
		return c.hash.pick(src, q)
	}
	rotation := c.rotation
	if q.tried.Len() > 0 {
		if rotation = c.retries; rotation == nil { // the set is too large for a second rotation
			return c.roster.sample(q, nil)
		}
	}
	if !c.roster.isLarge() {
		return rotation.pick(q)
	}
	if !c.roster.scarce(q) {
		if m := rotation.pick(q); m != nil {
			return m
		}
	}
	return c.roster.search(q, nil)
}
