package main

import (
	"golang.org/x/sys/unix"
)

// A churn is one kind of client behaviour in a soak.
type churn struct {
	name string
	do   func(*soak, *instance) error
}

// churns are all kinds of client behaviour. Each takes some tenths of a second.
var churns = []churn{
	{"connections", (*soak).connections},
	{"kept connections, half of them reset", (*soak).kept},
	{"downloads given up midway", (*soak).aborted},
	{"transfers", (*soak).transfers},
	{"new UDP clients", (*soak).clients},
	{"datagrams", (*soak).datagrams},
}

// load runs slots until work units are done.
func (s *soak) load(name string, work, rate int, slots []slot) (failed int, err error) {
	l, err := newLoop(work)
	if err != nil {
		return 0, err
	}
	defer l.close()
	l.rate = rate
	err = l.run(slots, measureLimit)
	s.counts[name] += l.done
	if l.errors > 0 {
		s.say("%s: %d errors, the last: %v", name, l.errors, errOr(l.lastErr))
	}
	return l.errors, err
}

func (s *soak) connections(i *instance) error {
	failed, err := s.load("connections", 1500, 0, exchangeSlots(i.addrs()[:1], 32, opEcho, messageSize))
	s.failures += failed
	return err
}

func (s *soak) transfers(i *instance) error {
	failed, err := s.load("transfers", 100, 0, exchangeSlots(i.addrs()[:1], 8, opDown, mib))
	s.failures += failed
	return err
}

// kept keeps connections open over several requests. Half of them end with a reset.
func (s *soak) kept(i *instance) error {
	const n = 300
	fds, err := open(i.addrs()[:1], n)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	for _, fd := range fds[:n/2] {
		if err := resetOnClose(fd); err != nil {
			return err
		}
	}
	s.counts["kept connections, half of them reset"] += n
	failed, err := s.load("requests", 2000, 0, requestSlots(fds, 32))
	s.failures += failed
	return err
}

// aborted requests much data, reads little and closes, half of the clients with a reset.
func (s *soak) aborted(i *instance) error {
	const n = 64
	fds, err := open(i.addrs()[:1], n)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	for id, fd := range fds {
		if _, err := unix.Write(fd, message(opDown, 16*mib)); err != nil {
			return err
		}
		if id%2 == 0 {
			if err := resetOnClose(fd); err != nil {
				return err
			}
		}
	}
	// When these two slots have read their bytes, the other connections have bytes in every buffer on the way.
	slots := []slot{&bulkSlot{fd: fds[0], op: opDown, share: 4}, &bulkSlot{fd: fds[1], op: opDown, share: 4}}
	failed, err := s.load("bulk", 8, 0, slots)
	s.failures += failed
	s.counts["downloads given up midway"] += n
	return err
}

// resetOnClose makes close send a reset.
func resetOnClose(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func (s *soak) clients(i *instance) error {
	slots := make([]slot, 256)
	for id := range slots {
		slots[id] = &newSlot{addr: i.addrs()[1]}
	}
	lost, err := s.load("new UDP clients", 4000, 10_000, slots)
	s.lost += lost
	return err
}

func (s *soak) datagrams(i *instance) error {
	fds, err := openUDP(i.addrs()[1:2], 32)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	var slots []slot
	for _, fd := range fds {
		slots = append(slots, &datagramSlot{fd: fd})
	}
	lost, err := s.load("datagrams", 4000, 0, slots)
	s.lost += lost
	return err
}
