package discovery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A heldReport says that endpoints of the services of a watch begin to be held, or that none is held any more.
type heldReport struct {
	news     heldNews
	services []string
	vanished int // held endpoints
	known    int // instances that Consul names now
	reasons  map[HoldReason]int
	until    time.Time // when the last held endpoint is let go
}

type heldNews int

const (
	onlyHeld  heldNews = iota // an operator has deregistered the only instance
	heldBegan                 // endpoints are held
	heldEnded                 // no endpoint is held any more
)

// tellHeld logs reports of services, with one line for each kind of news.
func tellHeld(log hclog.Logger, reports []heldReport) {
	for _, news := range []heldNews{onlyHeld, heldBegan, heldEnded} {
		all := heldReport{news: news, reasons: map[HoldReason]int{}}
		for _, r := range reports {
			if r.news != news {
				continue
			}
			all.services = append(all.services, r.services...)
			all.vanished += r.vanished
			all.known += r.known
			for why, n := range r.reasons {
				all.reasons[why] += n
			}
			if r.until.After(all.until) {
				all.until = r.until
			}
		}
		if len(all.services) > 0 {
			slices.Sort(all.services)
			all.tell(log)
		}
	}
}

func (r *heldReport) tell(log hclog.Logger) {
	log = log.With("service", shortNames(r.services))
	if n := len(r.services); n > 1 {
		log = log.With("services", n)
	}
	switch r.news {
	case onlyHeld:
		log.Info("the only instance was deregistered, it stays in use for a moment", "until", clock(r.until))
	case heldBegan:
		log.Warn("most instances have vanished at once, they stay in use for now",
			"vanished", r.vanished, "left", r.known, "reasons", reasonsText(r.reasons), "until", clock(r.until))
	case heldEnded:
		log.Info("no vanished instances are kept in use any more", "instances", r.known)
	}
}

// reasonsOf counts the reasons of holds.
func reasonsOf(held map[string]hold) map[HoldReason]int {
	counts := map[HoldReason]int{}
	for _, h := range held {
		counts[h.why]++
	}
	return counts
}

// reasonsText returns counts of reasons as text, such as "2 critical, 1 forgotten".
func reasonsText(counts map[HoldReason]int) string {
	var words []string
	for _, why := range []HoldReason{HoldDeregistered, HoldCritical, HoldForgotten} {
		if n := counts[why]; n > 0 {
			words = append(words, fmt.Sprint(n, " ", why))
		}
	}
	return strings.Join(words, ", ")
}
