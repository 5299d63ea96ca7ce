package daemon

import (
	"encoding/json"
	"os"
	"reflect"
	"sync"

	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/proxy"
)

// A tally is what one or several processes have counted for a service. It leaves out what is open. Processes send it to
// each other as JSON.
type tally struct {
	Forwarded *proxy.Stats  `json:"forwarded,omitempty"` // nil: nothing was counted
	Kernel    *kernelTotals `json:"kernel,omitempty"`    // nil: nothing was counted
}

// A kernelTotals is what was counted for a service on the kernel path.
type kernelTotals struct {
	kernel.Counters
	Cut int64 // connections that were cut because of on_leave
}

func (k *kernelTotals) add(other kernelTotals) {
	other.Open = 0
	k.Counters.Add(other.Counters)
	k.Cut += other.Cut
}

// A ledger has the tallies of the processes that have served before this one, so that the counters of services go on
// over an upgrade. Its methods may be called concurrently.
type ledger struct {
	mu    sync.Mutex
	byPID map[int]map[string]tally // by service; PID 0 stands for all processes that have ended
}

// read replaces all tallies by those in text, which export of the predecessor has returned. An empty text changes
// nothing.
func (l *ledger) read(text json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	var all map[int]map[string]tally
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byPID = all
	return nil
}

// told stores the tallies that a process has changed. text is what changedTallies has returned there.
func (l *ledger) told(pid int, text json.RawMessage) {
	var changed map[string]tally
	if len(text) == 0 || json.Unmarshal(text, &changed) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byPID == nil {
		l.byPID = map[int]map[string]tally{}
	}
	if l.byPID[pid] == nil {
		l.byPID[pid] = map[string]tally{}
	}
	for service, t := range changed {
		l.byPID[pid][service] = t
	}
}

// ended adds the tallies of a process to those of all that have ended, because another process may get its ID.
func (l *ledger) ended(pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endedLocked(pid)
}

func (l *ledger) endedLocked(pid int) {
	if len(l.byPID[pid]) > 0 && l.byPID[0] == nil {
		l.byPID[0] = map[string]tally{}
	}
	for service, t := range l.byPID[pid] {
		l.byPID[0][service] = sumOf(l.byPID[0][service], t)
	}
	delete(l.byPID, pid)
}

// export returns the tallies for the successor: those in the ledger, and those of this process.
func (l *ledger) export(own map[string]tally) json.RawMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endedLocked(os.Getpid()) // of an earlier process with the same ID
	all := map[int]map[string]tally{os.Getpid(): own}
	for pid, tallies := range l.byPID {
		all[pid] = tallies
	}
	text, _ := json.Marshal(all) // numbers can always be encoded
	return text
}

// of returns the sum of all processes for a service.
func (l *ledger) of(service string) (sum tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tallies := range l.byPID {
		sum = sumOf(sum, tallies[service])
	}
	return sum
}

// hasKernel reports whether an earlier process has counted anything on the kernel path.
func (l *ledger) hasKernel() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tallies := range l.byPID {
		for _, t := range tallies {
			if t.Kernel != nil {
				return true
			}
		}
	}
	return false
}

// sumOf returns the sum of two tallies, and changes neither.
func sumOf(a, b tally) (sum tally) {
	for _, t := range []tally{a, b} {
		if t.Forwarded != nil {
			if sum.Forwarded == nil {
				sum.Forwarded = &proxy.Stats{Handshakes: &proxy.Handshakes{}}
			}
			sum.Forwarded.Add(t.Forwarded)
		}
		if t.Kernel != nil {
			if sum.Kernel == nil {
				sum.Kernel = &kernelTotals{}
			}
			sum.Kernel.add(*t.Kernel)
		}
	}
	return sum
}

// tallies returns what this process has counted, by service.
func (d *Daemon) tallies() map[string]tally {
	all := map[string]tally{}
	for _, s := range d.proxier.Snapshot() {
		counted := proxy.Stats{}
		if h := s.Handshakes; h != nil && *h != (proxy.Handshakes{}) {
			counted.Handshakes = &proxy.Handshakes{}
		}
		if counted.Add(&s); counted != (proxy.Stats{}) {
			all[s.Service] = tally{Forwarded: &counted}
		}
	}
	for service, k := range d.kernel.totals() {
		t := all[service]
		t.Kernel = &k
		all[service] = t
	}
	return all
}

// changedTallies returns the tallies that differ between before and now, for ledger.told. It returns nil if there are
// none.
func changedTallies(before, now map[string]tally) json.RawMessage {
	changed := map[string]tally{}
	for service, t := range now {
		if !reflect.DeepEqual(before[service], t) {
			changed[service] = t
		}
	}
	if len(changed) == 0 {
		return nil
	}
	text, _ := json.Marshal(changed) // numbers can always be encoded
	return text
}

// A countedProxier is a proxier whose counters include those of earlier processes.
type countedProxier struct {
	*proxy.Proxier
	earlier *ledger
}

// Snapshot implements admin.Proxier.
func (c countedProxier) Snapshot() []proxy.Stats {
	all := c.Proxier.Snapshot()
	for i := range all {
		if t := c.earlier.of(all[i].Service); t.Forwarded != nil {
			all[i].Add(t.Forwarded)
		}
	}
	return all
}
