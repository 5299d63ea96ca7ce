package daemon

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestCollectorPercent(t *testing.T) {
	for _, test := range []struct {
		services int
		gogc     string
		percent  int
		ours     bool
	}{
		{1, "", 100, true},
		{manyServices, "", 50, true},
		{manyServices, "200", 0, false}, // set by an operator
		{manyServices, "off", 0, false},
	} {
		percent, ours := collectorPercent(test.services, test.gogc)
		if percent != test.percent || ours != test.ours {
			t.Errorf("%d services, GOGC=%q: got %d, %v, want %d, %v",
				test.services, test.gogc, percent, ours, test.percent, test.ours)
		}
	}
}

func TestPercentForMemoryInUse(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		percent int
		live    uint64
		want    int
	}{
		{100, 0, mostPercent},
		{100, mb, mostPercent},
		{100, 4 * mb, 400},
		{100, 5 * mb, 320},
		{100, 16 * mb, 100},
		{100, 500 * mb, 100},
		{50, 16 * mb, 100},
		{50, 64 * mb, 50},
	} {
		if got := percentFor(test.percent, test.live); got != test.want {
			t.Errorf("%d%%, %d MB in use: got %d, want %d", test.percent, test.live/mb, got, test.want)
		}
	}
}

// The percentage follows the memory in use: up when there is little, and down when there is much. The test has a
// process of its own, because other tests leave memory in use.
func TestCollectorFollowsTheMemoryInUse(t *testing.T) {
	if !isAlone(t) {
		return
	}
	c := &collector{}
	c.tune(1)
	await := func(what string, is func(percent int) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			runtime.GC()
			c.mu.Lock()
			percent := c.set
			c.mu.Unlock()
			switch {
			case is(percent):
				return
			case time.Now().After(deadline):
				t.Fatalf("with %s in use, the percentage stays at %d", what, percent)
			}
		}
	}
	await("little memory", func(percent int) bool { return percent > 100 })
	kept := make([]byte, 64<<20)
	await("64 MB", func(percent int) bool { return percent == 100 })
	runtime.KeepAlive(kept)
	await("little memory again", func(percent int) bool { return percent > 100 })
}

// isAlone reports whether this process runs nothing but this test. Otherwise it runs the test in such a process.
func isAlone(t *testing.T) bool {
	const alone = "LICTOR_TEST_COLLECTOR"
	if os.Getenv(alone) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), alone+"=1", "GOGC=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// After a burst of work, the process gives the garbage back to the system, and then collects no more.
func TestCollectorGivesGarbageBack(t *testing.T) {
	if !isAlone(t) {
		return
	}
	c := &collector{}
	c.tune(1)
	var kept [][]byte
	for i := range 3 * freeGarbage >> 10 {
		if b := make([]byte, 1<<10); i%1000 == 0 {
			kept = append(kept, b)
		}
	}
	look := func() (held, collections uint64) { // held are bytes of the heap that the system has not got back
		s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
			{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
		metrics.Read(s)
		return s[0].Value.Uint64() + s[1].Value.Uint64() + s[2].Value.Uint64(), s[3].Value.Uint64()
	}
	const most = 4 << 20
	if held, _ := look(); held <= most {
		t.Fatalf("the burst leaves %d bytes, so this tests nothing", held)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		held, _ := look()
		if held <= most {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of the heap are still held, want %d at most", held, most)
		}
	}
	_, before := look()
	time.Sleep(2*quietFor + quietFor/2)
	if _, after := look(); after > before+1 { // one is that which has just given the garbage back
		t.Errorf("%d more collections, although there is no work", after-before)
	}
	runtime.KeepAlive(kept)
}
