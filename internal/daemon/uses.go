package daemon

import (
	"context"
	"time"

	"github.com/lictor-proxy/lictor/internal/upgrade"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

const (
	// tellEvery is the minimum time between two messages in which a former process reports its uses.
	tellEvery = 50 * time.Millisecond

	// tallyEvery is how often a former process looks whether its counters have changed, besides when it looks at its
	// uses.
	tallyEvery = time.Second

	// tellLast limits how long a former process waits at its end until its last report is sent.
	tellLast = time.Second
)

// A useOf identifies what is used: an [upgrade.Use] without its count.
type useOf = upgrade.Use

// uses returns the uses of this process, without those of former processes.
func (d *Daemon) uses() map[useOf]int64 {
	all := map[useOf]int64{}
	for service, uses := range d.balancer.Uses() {
		for key, n := range uses {
			all[useOf{Service: service, ID: key.ID, Address: key.Address}] = n
		}
	}
	for service, clients := range d.proxier.ClientCounts() {
		for client, n := range clients {
			all[useOf{Service: service, Client: client.Addr, Identity: client.Identity}] = int64(n)
		}
	}
	return all
}

// usesWithout returns the uses of this process, without the sessions that it hands over.
func (d *Daemon) usesWithout(sessions []proxy.Session) []upgrade.Use {
	all := d.uses()
	for _, x := range sessions {
		for _, of := range []useOf{
			{Service: x.Service, ID: x.Endpoint.ID, Address: x.Endpoint.Address()},
			{Service: x.Service, Client: lb.ClientOf(x.Client.Addr())},
		} {
			if all[of] > 0 {
				all[of]--
			}
		}
	}
	return changedUses(nil, all)
}

// changedUses returns the counts that differ between before and now.
func changedUses(before, now map[useOf]int64) (changed []upgrade.Use) {
	for of, n := range now {
		if before[of] != n {
			of.Count = n
			changed = append(changed, of)
		}
	}
	for of := range before {
		if _, is := now[of]; !is {
			changed = append(changed, of)
		}
	}
	return changed
}

// keepWhileWaiting raises counts in now to those in before, for services with waiting clients. A waiting client of this
// process may take a freed slot at once, so other processes must not use the slot.
func keepWhileWaiting(before, now map[useOf]int64) {
	for of, n := range before {
		waits := now[useOf{Service: of.Service}] > 0
		if waits && of != (useOf{Service: of.Service}) && now[of] < n {
			now[of] = n
		}
	}
}

// tellUses reports this process's uses and counters to the serving process, until the daemon ends or no process
// receives the reports.
func (d *Daemon) tellUses(to *upgrade.Serving) {
	wake := make(chan struct{}, 1)
	ended := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	d.balancer.NotifyEnded(ended)
	d.proxier.NotifyUncounted(ended)
	d.last, d.told = make(chan struct{}), make(chan struct{})
	d.running.Go(func() {
		defer close(d.told)
		for to != nil {
			to = d.tellOne(to, wake)
		}
	})
}

// tellTheLast sends the last report. Only finish calls it, once, when the last connection has ended.
func (d *Daemon) tellTheLast() {
	if d.told == nil { // no process receives reports
		return
	}
	close(d.last)
	select {
	case <-d.told:
	case <-time.After(tellLast):
	}
}

// tellOne reports to one process. tellOne returns the process that serves next, or nil if there is none.
func (d *Daemon) tellOne(to *upgrade.Serving, wake <-chan struct{}) *upgrade.Serving {
	defer to.Close()
	defer context.AfterFunc(d.ctx, to.Close)()
	moved := make(chan *upgrade.Serving, 1)
	d.running.Go(func() {
		next, _ := to.Moved() // an error means that there is none
		moved <- next
	})
	ticks := time.NewTicker(tallyEvery)
	defer ticks.Stop()
	told, counted := d.uses(), d.tallies()
	report := upgrade.Report{Uses: changedUses(nil, told), All: true, Counters: changedTallies(nil, counted)}
	for err, last := to.Tell(report), false; err == nil && !last; {
		counts := false // to look at the counters is dear
		select {
		case next := <-moved:
			return next
		case <-d.last:
			last = true
		case <-ticks.C:
			counts = true
		case <-wake:
		}
		select {
		case next := <-moved:
			return next
		case <-d.last:
			last = true
		case <-time.After(tellEvery):
		}
		now := d.uses()
		keepWhileWaiting(told, now)
		report = upgrade.Report{Uses: changedUses(told, now)}
		told = now
		if counts || last {
			sums := d.tallies()
			report.Counters, counted = changedTallies(counted, sums), sums
		}
		if len(report.Uses) > 0 || report.Counters != nil {
			err = to.Tell(report)
		}
	}
	to.Close()
	return <-moved
}
