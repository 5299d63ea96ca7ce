package daemon

import (
	"sync"

	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A usage counts the uses of one service: clients of each endpoint and in the queue, and connections of each client.
type usage struct {
	endpoints map[lb.UseKey]int64
	clients   map[proxy.ClientKey]int
}

func newUsage() usage { return usage{map[lb.UseKey]int64{}, map[proxy.ClientKey]int{}} }

// set stores a count. A count of zero removes the entry.
func (u usage) set(x upgrade.Use) {
	client := proxy.ClientKey{Addr: x.Client, Identity: x.Identity}
	isClient := client != proxy.ClientKey{}
	switch key := (lb.UseKey{ID: x.ID, Address: x.Address}); {
	case isClient && x.Count > 0:
		u.clients[client] = int(x.Count)
	case isClient:
		delete(u.clients, client)
	case x.Count > 0:
		u.endpoints[key] = x.Count
	default:
		delete(u.endpoints, key)
	}
}

// A former is a process that this process has replaced, directly or through other processes.
type former struct {
	services map[string]usage
	link     *upgrade.Former // nil if the former process does not report its uses
}

// formers holds the uses that former processes report, so that limits apply to all processes together. A process that
// has ended has no uses. All methods are safe for concurrent use.
type formers struct {
	setEndpoints func(service string, uses map[lb.UseKey]int64)
	setClients   func(service string, counts map[proxy.ClientKey]int)
	ledger       *ledger // gets the counters of former processes

	mu    sync.Mutex
	byPID map[int]*former
	left  bool // a successor has replaced this process and receives the reports of the formers
}

func newFormers(
	setEndpoints func(string, map[lb.UseKey]int64), setClients func(string, map[proxy.ClientKey]int), ledger *ledger,
) *formers {
	return &formers{setEndpoints: setEndpoints, setClients: setClients, ledger: ledger, byPID: map[int]*former{}}
}

// begin stores the first reports of all processes.
func (f *formers) begin(all []upgrade.ProcessUses) {
	for _, p := range all {
		f.told(p.PID, p.Uses, true)
	}
}

// follow receives the reports of the processes at links, each in a goroutine that start starts. Processes without a
// link have ended.
func (f *formers) follow(links []*upgrade.Former, start func(func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alive := map[int]bool{}
	for _, link := range links {
		alive[link.PID] = true
		f.formerLocked(link.PID).link = link
		start(func() { f.receive(link) })
	}
	for pid := range f.byPID {
		if !alive[pid] {
			f.forgetLocked(pid)
		}
	}
}

// receive stores the reports of one process until the process has ended, or until stop or leave.
func (f *formers) receive(link *upgrade.Former) {
	defer link.Close()
	for {
		report, err := link.Receive()
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.forgetLocked(link.PID)
			return
		}
		f.ledger.told(link.PID, report.Counters)
		f.told(link.PID, report.Uses, report.All)
	}
}

func (f *formers) formerLocked(pid int) *former {
	p := f.byPID[pid]
	if p == nil {
		p = &former{services: map[string]usage{}}
		f.byPID[pid] = p
	}
	return p
}

// told stores the counts of a process. If all is true they replace the old counts; otherwise they update them.
func (f *formers) told(pid int, uses []upgrade.Use, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.formerLocked(pid)
	changed := map[string]bool{}
	if all {
		for service := range p.services {
			changed[service] = true
		}
		p.services = map[string]usage{}
	}
	for _, x := range uses {
		u, ok := p.services[x.Service]
		if !ok {
			u = newUsage()
			p.services[x.Service] = u
		}
		u.set(x)
		changed[x.Service] = true
	}
	for service := range changed {
		f.applyLocked(service)
	}
}

// forgetLocked removes a process that has ended. The ledger keeps its counters. After leave forgetLocked does nothing,
// because then the successor keeps the counts of all processes.
func (f *formers) forgetLocked(pid int) {
	p := f.byPID[pid]
	if p == nil || f.left {
		return
	}
	delete(f.byPID, pid)
	f.ledger.ended(pid)
	for service := range p.services {
		f.applyLocked(service)
	}
}

// applyLocked applies the sum over all former processes to a service.
func (f *formers) applyLocked(service string) {
	sum := newUsage()
	for _, p := range f.byPID {
		for key, n := range p.services[service].endpoints {
			sum.endpoints[key] += n
		}
		for client, n := range p.services[service].clients {
			sum.clients[client] += n
		}
	}
	f.setEndpoints(service, sum.endpoints)
	f.setClients(service, sum.clients)
}

// reapply applies all sums again, to services that a reload has created.
func (f *formers) reapply() {
	f.mu.Lock()
	defer f.mu.Unlock()
	services := map[string]bool{}
	for _, p := range f.byPID {
		for service := range p.services {
			services[service] = true
		}
	}
	for service := range services {
		f.applyLocked(service)
	}
}

// uses returns the uses of each former process.
func (f *formers) uses() (all []upgrade.ProcessUses) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for pid, p := range f.byPID {
		one := upgrade.ProcessUses{PID: pid}
		for service, u := range p.services {
			one.Uses = appendUses(one.Uses, service, u)
		}
		all = append(all, one)
	}
	return all
}

func appendUses(all []upgrade.Use, service string, u usage) []upgrade.Use {
	for key, n := range u.endpoints {
		all = append(all, upgrade.Use{Service: service, ID: key.ID, Address: key.Address, Count: n})
	}
	for client, n := range u.clients {
		all = append(all, upgrade.Use{Service: service, Client: client.Addr, Identity: client.Identity,
			Count: int64(n)})
	}
	return all
}

// leave returns the links of the former processes, for a successor. This process keeps receiving until the former
// processes report to the successor.
func (f *formers) leave() (all []*upgrade.Former) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = true
	for _, p := range f.byPID {
		if p.link != nil {
			all = append(all, p.link)
		}
	}
	return all
}

// stop ends the goroutines of follow.
func (f *formers) stop() {
	for _, link := range f.leave() {
		link.Close()
	}
}
