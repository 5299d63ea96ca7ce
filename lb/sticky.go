package lb

import (
	"net/netip"
	"sync"
	"time"
)

// maxSticky is how many clients a service remembers; beyond that it forgets those that came longest ago.
const maxSticky = 1 << 16

// stickyShards share the clients out, so that picks on several cores seldom wait for the same lock.
const stickyShards = 16

// A stickyTable remembers which member a client was given. Entries are reused, so a full table allocates nothing.
type stickyTable struct {
	shards [stickyShards]stickyShard
}

type stickyShard struct {
	mu      sync.Mutex
	max     int
	index   map[netip.Addr]int32
	entries []stickyEntry // entries[0] is the head of a ring: its next came longest ago
}

// A stickyEntry is one client.
type stickyEntry struct {
	client     netip.Addr
	member     *Member
	seen       instant // on the registry's clock
	prev, next int32
}

func newStickyTable(max int) *stickyTable {
	t := &stickyTable{}
	for i := range t.shards {
		t.shards[i] = stickyShard{max: max / stickyShards, index: map[netip.Addr]int32{},
			entries: make([]stickyEntry, 1)}
	}
	return t
}

func (t *stickyTable) shard(client netip.Addr) *stickyShard {
	return &t.shards[hashAddr(client)%stickyShards]
}

// get returns the member that client was given, if that was less than ttl ago; and nil if not.
func (t *stickyTable) get(client netip.Addr, now instant, ttl time.Duration) *Member {
	s := t.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[client]
	if !ok || now.sub(s.entries[i].seen) >= ttl {
		return nil
	}
	s.entries[i].seen = now
	s.unlink(i)
	s.link(i)
	return s.entries[i].member
}

// put notes that client was given m.
func (t *stickyTable) put(client netip.Addr, m *Member, now instant) {
	s := t.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[client]
	switch {
	case ok:
		s.unlink(i)
	case len(s.entries) <= s.max:
		i = int32(len(s.entries))
		s.entries = append(s.entries, stickyEntry{})
		s.index[client] = i
	default:
		i = s.entries[0].next
		s.unlink(i)
		delete(s.index, s.entries[i].client)
		s.index[client] = i
	}
	e := &s.entries[i]
	e.client, e.member, e.seen = client, m, now
	s.link(i)
}

func (s *stickyShard) link(i int32) {
	e, head := &s.entries[i], &s.entries[0]
	e.prev, e.next = head.prev, 0
	s.entries[head.prev].next = i
	head.prev = i
}

func (s *stickyShard) unlink(i int32) {
	e := &s.entries[i]
	s.entries[e.prev].next = e.next
	s.entries[e.next].prev = e.prev
}

// len is how many clients are remembered.
func (t *stickyTable) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.index)
		s.mu.Unlock()
	}
	return n
}
