package daemon

import (
	"os"
	"runtime/debug"
)

// manyServices is the number of services from which on most memory holds long-lived service state.
const manyServices = 500

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

// tuneCollector sets the garbage collector's percentage for this number of services.
func tuneCollector(services int) {
	if percent, ours := collectorPercent(services, os.Getenv("GOGC")); ours {
		debug.SetGCPercent(percent)
	}
}
