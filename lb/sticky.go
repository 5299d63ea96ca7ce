package lb

import (
	"net/netip"
	"sync"
	"time"
)

// maxSticky is how many sticky clients a service remembers. To remember one more, the service forgets the client that
// has been away for longest.
const maxSticky = 1 << 16

// stickyShards is the number of shards of a stickyTable. With many shards, picks on different cores seldom share a
// lock.
const stickyShards = 16

// A stickyTable remembers the member of each sticky client. The table reuses entries, so a full table allocates
// nothing.
type stickyTable struct {
	shards [stickyShards]stickyShard
}

type stickyShard struct {
	mu      sync.Mutex
	max     int
	index   map[netip.Addr]int32
	entries []stickyEntry // entries[0] is the head of a ring; its next entry is the oldest
}

// A stickyEntry holds one client and its member.
type stickyEntry struct {
	client     netip.Addr
	member     *Member
	seen       instant // time of the client's last pick
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

// get returns the member of client. get returns nil if the last pick of client was ttl or longer ago.
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

// put makes m the member of client.
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

// len returns how many clients the table remembers.
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
