package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// manyServices is the number of services from which on most memory holds long-lived service state.
	manyServices = 500

	// freeGarbage is how many bytes of garbage may exist while there is work. Go's own minimum is a quarter of that.
	// Each TLS handshake leaves about 35 KB, and a collection takes about 2 ms of a processor. So with Go's minimum,
	// collections take a tenth of the time of the handshakes.
	freeGarbage = 16 << 20

	// mostPercent bounds the percentage for processes with little memory in use. With it, Go lets the memory grow to
	// freeGarbage, because Go's minimum of 4 MB grows with the percentage.
	mostPercent = 400

	// quietFor is how long a process must have allocated little before it gives its garbage back to the system: less
	// than quietBytes. A relay allocates almost nothing, so it does not matter how much is relayed.
	quietFor   = 2 * time.Second
	quietBytes = 1 << 20

	// leastReturn is how many bytes a process must have allocated since it last gave memory back, before it does so
	// again; or a quarter of the memory in use if that is more, because a collection looks at all of it.
	leastReturn = 4 << 20
)

// A collector sets how much garbage may exist before Go collects it: the percentage of the memory in use that is
// usual in Go's GOGC, or freeGarbage if that is more. When the process allocates little after that, the collector gives
// the garbage back to the system. Go itself would keep as much as may exist.
type collector struct {
	mu       sync.Mutex // guards the following fields
	percent  int        // the percentage for much memory in use; zero: an operator has set another one
	set      int        // the percentage in force
	quiet    *time.Timer
	before   uint64 // bytes that were allocated when the timer quiet was last set
	returned uint64 // bytes that were allocated when memory was last given back
}

// tune sets the percentage for this number of services, unless an operator has set one.
func (c *collector) tune(services int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ours bool
	if c.percent, ours = collectorPercent(services, os.Getenv("GOGC")); !ours {
		return
	}
	live, _ := memoryInUse()
	c.adjustLocked(live)
	if c.quiet == nil {
		c.quiet = time.AfterFunc(quietFor, c.giveBack)
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
	live, allocated := memoryInUse()
	c.adjustLocked(live)
	c.before = allocated
	c.quiet.Reset(quietFor)
}

// giveBack gives garbage back to the system if little was allocated lately. Otherwise it looks again later. After that,
// the next collection makes it look again. Go collects at least every two minutes.
func (c *collector) giveBack() {
	live, allocated := memoryInUse()
	c.mu.Lock()
	busy := allocated-c.before >= quietBytes
	worthwhile := allocated-c.returned >= max(leastReturn, live/4)
	switch c.before = allocated; {
	case busy:
		c.quiet.Reset(quietFor)
	case worthwhile:
		c.returned = allocated
	}
	c.mu.Unlock()
	if !busy && worthwhile {
		debug.FreeOSMemory()
	}
}

// memoryInUse returns how many bytes were in use after the last collection, and how many were ever allocated.
func memoryInUse() (live, allocated uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// adjustLocked sets the percentage for live bytes in use. It leaves small differences alone, because setting takes a
// lock that allocations need.
func (c *collector) adjustLocked(live uint64) {
	percent := percentFor(c.percent, live)
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
