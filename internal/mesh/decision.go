package mesh

import (
	"cmp"
	"fmt"
	"slices"
)

// An Intention says whether services may connect to a destination.
type Intention struct {
	Source          string // the name of a service; "*": all of the namespace
	SourceNamespace string // "*": all
	SourcePartition string // empty: "default"
	SourcePeer      string // the cluster peering that the source comes through; empty: none
	Destination     string // "*": all
	Allow           bool   // false if L7 is true
	L7              bool   // it depends on requests or tokens, which a proxy of connections does not see
	Precedence      int    // the intention with the highest one decides
}

// anyName is the name of an intention that is for all names.
const anyName = "*"

// isOf reports whether the intention is about connections of c.
func (i *Intention) isOf(c *Client) bool {
	if i.Source != c.Service && i.Source != anyName { // so it is with most of them
		return false
	}
	return i.SourcePeer == "" && cmp.Or(i.SourcePartition, defaultTenancy) == c.Partition &&
		(i.SourceNamespace == anyName || i.SourceNamespace == c.Namespace)
}

// rules are what Consul says about who may connect to a destination. They do not change.
type rules struct {
	all   []Intention // the highest precedence first
	allow bool        // the default policy: what is decided if no intention is about a client
}

func newRules(all []Intention, allow bool) *rules {
	slices.SortStableFunc(all, func(a, b Intention) int { return b.Precedence - a.Precedence })
	return &rules{all, allow}
}

// equal reports whether two rules are the same.
func (r *rules) equal(o *rules) bool {
	return o != nil && r.allow == o.allow && slices.Equal(r.all, o.all)
}

// decide decides as Consul's /v1/agent/connect/authorize does.
func (r *rules) decide(c *Client) Decision {
	for i := range r.all {
		if one := &r.all[i]; one.isOf(c) {
			return Decision{Allowed: one.Allow && !one.L7, By: ByIntention, Source: one.Source,
				Destination: one.Destination, Precedence: one.Precedence, L7: one.L7}
		}
	}
	return Decision{Allowed: r.allow, By: ByDefaultPolicy}
}

// DecidedBy says what a Decision follows from.
type DecidedBy string

// What decides.
const (
	ByIntention     DecidedBy = "intention"
	ByDefaultPolicy DecidedBy = "default policy" // no intention is about the client
	ByNothing       DecidedBy = "unknown"        // Consul has never said what the intentions are
)

// A Decision says whether a client may connect, and why.
type Decision struct {
	Allowed bool
	By      DecidedBy

	// The fields of the intention that decides; empty if none does.
	Source, Destination string
	Precedence          int
	L7                  bool // the intention depends on what Lictor does not see, so it denies
}

// String returns a text for operators, such as: intention "*" -> "billing" (precedence 8) denies.
func (d Decision) String() string {
	does := "denies"
	if d.Allowed {
		does = "allows"
	}
	switch {
	case d.By == ByIntention && d.L7:
		return fmt.Sprintf("intention %q -> %q (precedence %d) denies: it is about requests, which lictor does not see",
			d.Source, d.Destination, d.Precedence)
	case d.By == ByIntention:
		return fmt.Sprintf("intention %q -> %q (precedence %d) %s", d.Source, d.Destination, d.Precedence, does)
	case d.By == ByDefaultPolicy:
		return "no intention is about it, and the default policy " + does
	}
	return "consul has not said yet what the intentions are, until then lictor " + does
}
