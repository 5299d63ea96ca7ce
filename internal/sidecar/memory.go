package sidecar

import (
	"time"
)

// A memory knows which instance had which port, so that an instance gets its former port again. No two instances have
// the same port. A memory is not safe for concurrent use.
type memory struct {
	within Ports
	ports  map[string]remembered // by the ID of the instance
}

// A remembered is the port of an instance.
type remembered struct {
	number uint16
	used   time.Time // when the instance last was given the port, or lost it
}

// newMemory returns an empty memory for the ports of a range.
func newMemory(within Ports) *memory { return &memory{within: within, ports: map[string]remembered{}} }

// assign gives the instance a port that is not taken, and remembers it. It prefers the port that the instance had, then
// hint, then ports that nobody had, then the port that was not used for longest. A hint of zero means none. assign
// returns false if all ports are taken.
func (m *memory) assign(id string, hint uint16, taken func(uint16) bool, now time.Time) (uint16, bool) {
	for _, n := range []uint16{m.ports[id].number, hint} {
		if m.within.holds(n) && !taken(n) {
			return m.give(id, n, now), true
		}
	}
	had := make(map[uint16]time.Time, len(m.ports))
	for _, p := range m.ports {
		had[p.number] = p.used
	}
	var oldest uint16
	for n := int(m.within.First); n <= int(m.within.Last); n++ {
		port := uint16(n)
		used, known := had[port]
		switch {
		case port == 0, known && oldest != 0 && !used.Before(had[oldest]):
		case taken(port):
		case !known:
			return m.give(id, port, now), true
		default:
			oldest = port
		}
	}
	if oldest == 0 {
		return 0, false
	}
	return m.give(id, oldest, now), true
}

// give remembers that the instance has the port, and forgets who had it.
func (m *memory) give(id string, n uint16, now time.Time) uint16 {
	for other, p := range m.ports {
		if p.number == n && other != id {
			delete(m.ports, other)
		}
	}
	m.ports[id] = remembered{n, now}
	return n
}

// leave notes that the instance does not use its port any more.
func (m *memory) leave(id string, now time.Time) {
	if p, known := m.ports[id]; known {
		p.used = now
		m.ports[id] = p
	}
}
