package daemon

import (
	"os"
	"runtime/debug"
)

// manyServices is from how many on most of the memory is what is known of services, which stays.
const manyServices = 500

// collectorPercent is how much garbage there may be, in percent of what is in use, before it is collected; gogc is the
// variable by which an operator decides that. Go's 100 lets memory that hardly changes be half garbage. The price is
// small where there is much of it, and forwarding makes next to none.
func collectorPercent(services int, gogc string) (percent int, ours bool) {
	if gogc != "" {
		return 0, false
	}
	if services >= manyServices {
		return 50, true
	}
	return 100, true
}

// tuneCollector has garbage collected as suits so many services.
func tuneCollector(services int) {
	if percent, ours := collectorPercent(services, os.Getenv("GOGC")); ours {
		debug.SetGCPercent(percent)
	}
}
