package admin

import (
	"fmt"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// A Near shows how a service prefers near endpoints.
type Near struct {
	Prefer string `json:"prefer"` // what near endpoints share with this host, as in the configuration
	Strict bool   `json:"strict"`

	// Zone is the zone of near endpoints. Problem says why it is not known.
	Zone    string `json:"zone,omitempty"`
	Problem string `json:"problem,omitempty"`

	Zones  int     `json:"zones"`  // with endpoints that are not ejected
	Weight float64 `json:"weight"` // near part of the weight of these endpoints, between 0 and 1
	Share  float64 `json:"share"`  // part of the clients that stays near, between 0 and 1
	Stayed int64   `json:"stayed"` // clients that got a near endpoint
	Left   int64   `json:"left"`   // clients that got another endpoint
}

// nearOf converts the balancer's view. It returns nil for a service without preference.
func nearOf(s *lb.NearSnapshot) *Near {
	if s == nil {
		return nil
	}
	return &Near{Strict: s.Prefer == lb.PreferStrict, Zones: s.Zones, Weight: s.Weight, Share: s.Share,
		Stayed: s.Stayed, Left: s.Left}
}

// watched adds what a watch knows. Watches of discovery chains know nothing of zones.
func (n *Near) watched(w *discovery.WatchStatus) {
	if w.Query.Prefer.By == "" {
		return
	}
	n.Prefer = w.Query.Prefer.By
	if w.Zone != "" || n.Zone == "" {
		n.Zone, n.Problem = w.Zone, w.NoZone
	}
}

// Text says in one line which endpoints the service prefers, and how many clients stay near.
func (n *Near) Text() string {
	text := fmt.Sprintf("prefers the same %s", n.Prefer)
	switch {
	case n.Problem != "":
		return text + ", which is not known: " + n.Problem
	case n.Zone != "":
		text += fmt.Sprintf(" (%s)", n.Zone)
	}
	if n.Strict {
		text += ", strictly"
	}
	text += fmt.Sprintf("; %.0f%% of the weight is there, and %.0f%% of the clients stay", 100*n.Weight, 100*n.Share)
	if all := n.Stayed + n.Left; all > 0 {
		text += fmt.Sprintf("; so far %d of %d left", n.Left, all)
	}
	return text
}
