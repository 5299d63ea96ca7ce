package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// replace stores a new set, and returns the differences as events. The caller must hold mu. replace keeps no reference
// to set.
func (one *set) replace(set []lb.Endpoint, now time.Time) (events []Event) {
	before, since, different := one.endpoints, one.joined, !one.known
	one.known = true
	one.endpoints = slices.Clone(set)
	slices.SortStableFunc(one.endpoints, byID)
	one.joined = make([]time.Time, len(set))
	for i, e := range one.endpoints {
		at, known := find(before, e.ID)
		if known && before[at] == e {
			one.joined[i] = since[at]
			continue
		}
		one.joined[i], different = now, true
		event := Event{Time: now, Kind: KindJoined, Service: one.service, Endpoint: e.ID, Text: located(e)}
		if known {
			event.Kind, event.Text = KindChanged, e.ID+difference(before[at], e)
		}
		events = append(events, event)
	}
	for _, e := range before {
		if _, stays := find(one.endpoints, e.ID); !stays {
			different = true
			events = append(events,
				Event{Time: now, Kind: KindLeft, Service: one.service, Endpoint: e.ID, Text: located(e)})
		}
	}
	if different { // a source may send the same set again
		one.changed = now
	}
	return events
}

func located(e lb.Endpoint) string { return fmt.Sprintf("%s at %s", e.ID, e.Address()) }

// difference describes how an endpoint has changed.
func difference(before, now lb.Endpoint) string {
	var text strings.Builder
	if b, n := before.Address(), now.Address(); b != n {
		fmt.Fprintf(&text, " moved from %s to %s", b, n)
	}
	if before.Weight != now.Weight {
		fmt.Fprintf(&text, " weight %d, was %d", now.Weight, before.Weight)
	}
	if before.ServerName != now.ServerName {
		fmt.Fprintf(&text, " server name %s, was %s", cmp.Or(now.ServerName, "none"), cmp.Or(before.ServerName, "none"))
	}
	if before.Identity != now.Identity {
		fmt.Fprintf(&text, " identity %s, was %s", cmp.Or(now.Identity, "none"), cmp.Or(before.Identity, "none"))
	}
	if before.Zone != now.Zone {
		fmt.Fprintf(&text, " zone %s, was %s", cmp.Or(now.Zone, "not known"), cmp.Or(before.Zone, "not known"))
	}
	switch {
	case now.Near && !before.Near:
		text.WriteString(" now near")
	case before.Near && !now.Near:
		text.WriteString(" no longer near")
	}
	return text.String()
}

// find returns the position of the endpoint with this ID in a sorted set, and whether the set has it.
func find(set []lb.Endpoint, id string) (at int, found bool) {
	return slices.BinarySearchFunc(set, id, func(e lb.Endpoint, id string) int { return strings.Compare(e.ID, id) })
}

func byID(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) }
