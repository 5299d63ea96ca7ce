package daemon

import (
	"os"
	"os/exec"
	"runtime"
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
		{100, 4 * mb, 200},
		{100, 5 * mb, 160},
		{100, 8 * mb, 100},
		{100, 500 * mb, 100},
		{50, 8 * mb, 100},
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
	const alone = "LICTOR_TEST_COLLECTOR"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), alone+"=1", "GOGC=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
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
