package daemon

import (
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// leftEvery is how often the keeper looks whether endpoints that have left still have connections.
const leftEvery = 10 * time.Second

// A goneTee is a balancer that also tells the kernel path which endpoints have left for good.
type goneTee struct {
	*lb.RoundRobin
	kernel *kernelKeeper
}

// NotifyGone implements lb.LoadBalancer.
func (t goneTee) NotifyGone(f func([]*lb.Member)) {
	t.RoundRobin.NotifyGone(func(members []*lb.Member) {
		t.kernel.changed(members[0].Service()) // all are of one service
		f(members)
	})
}

// settleLeft cuts the connections to endpoints that have left, as on_leave says, and forgets endpoints of which the
// kernel path has no counters any more. It also ends the UDP sockets that are connected to an endpoint which no pick
// can return any more: the kernel path does not see what they send, so they would send it there for ever. settleLeft
// returns after which time it should be called again; zero means when an endpoint leaves. The caller must hold feeding.
func (k *kernelKeeper) settleLeft(s *kernelService, path kernelPath) (again time.Duration) {
	k.mu.Lock()
	none := len(s.known) == len(s.members)
	k.mu.Unlock()
	if none {
		return 0
	}
	open := map[uint64]uint64{}
	_, each := path.Counters(s.name)
	for _, e := range each {
		open[e.Key] += e.Open
	}
	k.mu.Lock()
	var keys []uint64
	for key, m := range s.known {
		if _, is := s.members[key]; is {
			delete(s.ended, key)
			continue
		}
		n, counted := open[key]
		m.Keep(n > 0)
		if !counted {
			delete(s.known, key)
			delete(s.keys, m.Key())
			delete(s.ended, key)
			continue
		}
		if s.udp && !s.ended[key] {
			keys, s.ended[key] = append(keys, key), true
		}
		if n == 0 {
			continue
		}
		at, ends := s.cutOff(m)
		left := time.Until(at)
		switch {
		case !ends:
			left = leftEvery
		case left <= 0:
			keys, left = append(keys, key), leftEvery
		}
		if again == 0 || left < again {
			again = left
		}
	}
	k.mu.Unlock()
	if len(keys) > 0 {
		k.cutLocked(s.name, path, keys)
	}
	return again
}

// cutOff returns when connections to m must be cut because m has left. It returns false if they need not be cut.
func (s *kernelService) cutOff(m *lb.Member) (at time.Time, ends bool) {
	leave := m.Gone()
	if leave == nil {
		return at, false
	}
	grace, ends := s.onLeave.Grace(leave.Why)
	return leave.At.Add(grace), ends
}

// cutLocked cuts the connections to endpoints of a service. The caller must hold feeding.
func (k *kernelKeeper) cutLocked(service string, path kernelPath, keys []uint64) {
	n, err := path.Cut(service, keys)
	if err != nil {
		k.log.Error("connections to endpoints that have left are not cut", "service", service, "error", err)
		return
	}
	if n > 0 {
		k.log.Info("connections on the kernel path were cut, their endpoints have left", "service", service,
			"connections", n)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut[service] += int64(n)
}

// release makes the balancer forget what was kept for s.
func (s *kernelService) release() {
	for _, m := range s.known {
		m.Keep(false)
	}
}
