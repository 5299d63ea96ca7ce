package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// manyServices is the number of services from which on most memory holds long-lived service state.
	manyServices = 500

	// freeGarbage is how many bytes of garbage may always exist. Go's own minimum is half of that. Each TLS
	// handshake leaves about 50 KB, so with Go's minimum, a process with little memory in use collects garbage after
	// every 40th handshake.
	freeGarbage = 8 << 20

	// mostPercent bounds the percentage for processes with little memory in use. With it, Go lets the memory grow to
	// freeGarbage, because Go's minimum of 4 MB grows with the percentage.
	mostPercent = 200
)

// A collector sets how much garbage may exist before Go collects it: the percentage of the memory in use that is
// usual in Go's GOGC, or freeGarbage if that is more.
type collector struct {
	mu      sync.Mutex // guards the following fields
	percent int        // the percentage for much memory in use; zero: an operator has set another one
	set     int        // the percentage in force
	watches bool       // adjust is called after each collection
}

// tune sets the percentage for this number of services, unless an operator has set one.
func (c *collector) tune(services int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ours bool
	if c.percent, ours = collectorPercent(services, os.Getenv("GOGC")); !ours {
		return
	}
	c.adjustLocked()
	if !c.watches {
		c.watches = true
		c.watch()
	}
}

// watch makes the garbage collector call adjust after its next collection, and then after each.
func (c *collector) watch() {
	type unused struct{ _ *int } // an object without pointers may stay as long as others beside it
	runtime.AddCleanup(&unused{}, func(c *collector) { c.adjust(); c.watch() }, c)
}

func (c *collector) adjust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adjustLocked()
}

// adjustLocked sets the percentage for the memory in use. It leaves small differences alone, because setting stops all
// threads for some microseconds.
func (c *collector) adjustLocked() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := percentFor(c.percent, live[0].Value.Uint64())
	if differ := percent - c.set; max(differ, -differ) > c.set/10 {
		c.set = percent
		debug.SetGCPercent(percent)
	}
}

// percentFor returns the percentage with which at least freeGarbage may exist while live bytes are in use. It is at
// least percent.
func percentFor(percent int, live uint64) int {
	return max(percent, int(min(mostPercent, 100*freeGarbage/max(live, 1))))
}

// collectorPercent returns the value for GOGC: how much garbage may exist, in percent of the memory in use, before Go
// collects it. The argument gogc is the environment variable; if it is set, ours is false. With Go's default of 100,
// half of the memory can be garbage. A lower value costs little with many services, because forwarding produces almost
// no garbage.
func collectorPercent(services int, gogc string) (percent int, ours bool) {
	if gogc != "" {
		return 0, false
	}
	if services >= manyServices {
		return 50, true
	}
	return 100, true
}
