package discovery

import (
	"slices"

	"github.com/hashicorp/go-hclog"
)

// A failoverReport says that a service uses another tier.
type failoverReport struct {
	service string
	to      string // name of the tier that is used now
	back    bool   // that tier comes before the former one

	from string // name of the former tier; set only if back is set

	// The following fields are set only if back is not set.
	reason      string
	there, left int // available endpoints in the new tier, and in the former one
}

// tellFailover logs reports. Services that change to the same tier share a line, with the reason of the first one.
func tellFailover(log hclog.Logger, reports []failoverReport) {
	for len(reports) > 0 {
		first := reports[0]
		var services []string
		there, left := 0, 0
		reports = slices.DeleteFunc(reports, func(r failoverReport) bool {
			same := r.to == first.to && r.back == first.back && r.from == first.from
			if same {
				services = append(services, r.service)
				there, left = there+r.there, left+r.left
			}
			return same
		})
		slices.Sort(services)
		about := []any{"service", shortNames(services), "to", first.to}
		if n := len(services); n > 1 {
			about = append(about, "services", n)
		}
		if first.back {
			log.Info("service is back at an earlier source", append(about, "from", first.from)...)
			continue
		}
		log.Warn("service fails over", append(about, "reason", first.reason, "instances_there", there,
			"left_before_it", left)...)
	}
}
