package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// The states of a service, and of the process as a whole.
const (
	StateFine     = "fine"     // all is as it should be
	StateDegraded = "degraded" // clients are served, but something needs attention
	StateRefusing = "refusing" // clients are refused, or would be if they came
)

// A Reason is why a service or the process is not in StateFine.
type Reason struct {
	Kind  string     `json:"kind"`
	Text  string     `json:"text"`
	Since *time.Time `json:"since,omitempty"`
}

// The kinds of reasons for a service in StateRefusing.
const (
	KindNoEndpoint  = "no_endpoint" // no endpoint is usable; while new clients wait, the service is only degraded
	KindFull        = "full"        // no connection is free; while new clients wait, the service is only degraded
	KindRetries     = "retries"     // the retry budget was exhausted
	KindFailing     = "failing"     // clients were refused because no endpoint answered them
	KindDescriptors = "descriptors" // clients were refused, or over TCP wait, because no descriptor was free
	KindDenied      = "denied"      // the destination denied clients' connections; degraded if not in the last seconds
)

// The kinds of reasons for a service in StateDegraded.
const (
	KindStale       = "stale"       // the source fails
	KindUnconfirmed = "unconfirmed" // the set is not confirmed since the start
	KindHidden      = "hidden"      // Consul may hide instances from Lictor's token
	KindHeld        = "held"        // endpoints are held
	KindEjected     = "ejected"     // endpoints are ejected, or fail their check
	KindDrained     = "drained"     // endpoints are drained
	KindPanic       = "panic"       // ejections are ignored
	KindFailover    = "failover"    // a preferred source is not in use
	KindNames       = "names"       // host name lookups fail
)

// The kinds of reasons for the process, beside the states of its services.
const (
	KindPending = "pending" // changes of the configuration wait for a restart or an upgrade
	KindReload  = "reload"  // the last reload failed
)

// refused stores the rates of refused clients.
func (s *Service) refused(rates map[string]float64) {
	s.RefusedRateBy = rates
	for _, rate := range rates {
		s.RefusedRate += rate
	}
}

// judge sets the state and its reasons. The other fields must have been set before.
func (s *Service) judge(b *Balanced) {
	by := s.endpointsBy()
	refusing, waiting := s.unusable(b, by)
	if i := s.Identity; i != nil && !i.Usable() {
		refusing = append(refusing, Reason{Kind: KindIdentity, Text: i.Trouble()})
	}
	first := append(slices.Clone(refusing), waiting...)
	counted := s.Set != SetNone && len(first) > 0 && first[0].Kind == KindNoEndpoint
	for _, r := range s.refusedLately() {
		if !slices.ContainsFunc(refusing, func(known Reason) bool { return known.Kind == r.Kind }) {
			refusing = append(refusing, r)
		}
	}
	degraded := append(waiting, s.attention(by, counted)...)
	s.Reasons = append(refusing, degraded...)
	s.State = stateOf(len(refusing), len(degraded))
}

func stateOf(refusing, degraded int) string {
	switch {
	case refusing > 0:
		return StateRefusing
	case degraded > 0:
		return StateDegraded
	}
	return StateFine
}

// endpointsBy counts the endpoints by reason.
func (s *Service) endpointsBy() map[string]int {
	by := map[string]int{}
	for i := range s.Endpoints {
		by[s.Endpoints[i].Reason]++
	}
	return by
}

// unusable returns why the next client would be refused, and why the next client would have to wait.
func (s *Service) unusable(b *Balanced, by map[string]int) (refusing, waiting []Reason) {
	if s.Set == SetNone {
		text := "no endpoints are known yet"
		if s.Problem != "" {
			text += ": " + s.Problem
		}
		return []Reason{{Kind: KindNoEndpoint, Text: text, Since: s.StaleSince}}, nil
	}
	usable := 0
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; e.State == StateIn && e.Reason != ReasonEjected && e.Reason != ReasonTrial {
			usable++ // a panic lets ejected endpoints in, although they fail
		}
	}
	var r Reason
	switch {
	case usable == 0 && by[ReasonFull] == 0:
		r = Reason{Kind: KindNoEndpoint, Text: "no endpoint is usable" + countedBy(by)}
	case usable == 0:
		r = Reason{Kind: KindFull, Text: "every usable endpoint has its maximum of connections"}
	case b.Full:
		r = Reason{Kind: KindFull, Text: "the service has its maximum of connections"}
	default:
		return nil, nil
	}
	if b.Waiting < int64(b.Queue) && (r.Kind == KindFull || s.EmptyUntil != nil) {
		r.Text += "; new clients wait"
		return nil, []Reason{r}
	}
	return []Reason{r}, nil
}

// countedBy lists how many endpoints there are for each reason, such as ": 2 ejected, 1 drained".
func countedBy(by map[string]int) string {
	var parts []string
	for reason, n := range by {
		parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(reason, "_", " ")))
	}
	if len(parts) == 0 {
		return ": there are none"
	}
	slices.Sort(parts)
	return ": " + strings.Join(parts, ", ")
}

// refusedLately returns why clients were refused in the last seconds. Clients at their own limit, clients that may
// not come and clients without a PROXY header say nothing about the service.
func (s *Service) refusedLately() (out []Reason) {
	for _, r := range []struct {
		refusal    proxy.Refusal
		kind, text string
	}{
		{proxy.RefusedUnknown, KindNoEndpoint, "no endpoints were known yet"},
		{proxy.RefusedNoEndpoints, KindNoEndpoint, "no endpoint was usable"},
		{proxy.RefusedFull, KindFull, "no connection was free"},
		{proxy.RefusedRetries, KindRetries, "the retry budget was exhausted"},
		{proxy.RefusedUnreached, KindFailing, "no endpoint answered"},
		{proxy.RefusedDescriptors, KindDescriptors, "no file descriptor was free"},
		{proxy.RefusedDenied, KindDenied, lb.ErrDenied.Error()},
	} {
		if s.RefusedRateBy[r.refusal.String()] > 0 {
			if denied, are := s.denials(); are && r.kind == KindDenied {
				out = append(out, denied)
				continue
			}
			text := fmt.Sprintf("clients were refused in the last %d s: %s", refusedSamples, r.text)
			out = append(out, Reason{Kind: r.kind, Text: text})
		}
	}
	return out
}

// denials returns what endpoints have denied that have not answered since. denials returns false if there are none.
func (s *Service) denials() (r Reason, are bool) {
	endpoints, connections := 0, int64(0)
	for i := range s.Endpoints {
		d := s.Endpoints[i].Denied
		if d == nil {
			continue
		}
		endpoints++
		connections += d.Connections
		if r.Since == nil || d.Since.Before(*r.Since) {
			r.Since = &d.Since
		}
	}
	r.Kind = KindDenied
	r.Text = fmt.Sprintf("%v; connections: %d, at %d of %d endpoints", lb.ErrDenied, connections, endpoints,
		len(s.Endpoints))
	return r, endpoints > 0
}

// attention returns what needs attention although clients are served. If counted is true, another reason has counted
// the endpoints that get no clients.
func (s *Service) attention(by map[string]int, counted bool) (out []Reason) {
	add := func(is bool, kind, text string, since *time.Time) {
		if is {
			out = append(out, Reason{Kind: kind, Text: text, Since: since})
		}
	}
	add(s.StaleSince != nil && s.Set != SetNone, KindStale, "the source fails, its endpoints stay in use: "+s.Problem,
		s.StaleSince)
	add(s.Set == SetSaved, KindUnconfirmed, "the endpoints are from an earlier run and not confirmed yet", nil)
	add(s.Problem == discovery.ErrNoToken.Error(), KindHidden, s.Problem, nil)
	ejected := by[ReasonEjected] + by[ReasonTrial]
	add(s.Panicking, KindPanic, s.part(ejected)+" ejected, so many that ejections are ignored", nil)
	add(!s.Panicking && !counted && ejected > 0, KindEjected, s.part(ejected)+" ejected", nil)
	add(!counted && by[ReasonCheck] > 0, KindEjected, s.part(by[ReasonCheck])+" out because of a failed check", nil)
	d := &s.Descriptors
	add(s.Protocol == "tcp" && d.Ceiling > 0 && d.Taken+2 > d.Ceiling, KindDescriptors,
		"the service uses all file descriptors that it may have, so new clients wait", nil)
	for i, source := range s.Sources {
		add(source.Active && i > 0, KindFailover, fmt.Sprintf("served by %s: %s", source.Name, source.Detail), nil)
	}
	add(by[ReasonHeld] > 0, KindHeld, s.part(by[ReasonHeld])+" held, although gone from Consul", nil)
	add(!counted && by[ReasonDrained] > 0, KindDrained, s.part(by[ReasonDrained])+" drained", nil)
	for i := range s.Certificates {
		text := s.Certificates[i].trouble()
		add(text != "", KindCertificate, text, nil)
	}
	if i := s.Identity; i != nil && i.Usable() {
		add(i.State != IdentityFine, KindCertificate, i.Trouble(), nil)
	}
	if denied, are := s.denials(); are && s.RefusedRateBy[proxy.RefusedDenied.String()] == 0 {
		out = append(out, denied)
	}
	if s.Permissive {
		out = append(out, permissive())
	}
	unresolved := 0
	for i := range s.Endpoints {
		if n := s.Endpoints[i].Name; n != nil && n.Problem != "" {
			unresolved++
		}
	}
	add(unresolved > 0, KindNames, fmt.Sprintf("lookups of the host names of %d of %d endpoints fail", unresolved,
		len(s.Endpoints)), nil)
	return out
}

// part returns the beginning of a sentence about n of the endpoints, such as "1 of 3 endpoints is".
func (s *Service) part(n int) string {
	verb := "are"
	if n == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%d of %d endpoints %s", n, len(s.Endpoints), verb)
}

// judge sets the state of the process and its reasons. The other fields must have been set before.
func (t *Status) judge(services []Service, exposed []Exposed) {
	degraded := t.Degraded
	if t.Refusing > 0 {
		t.Reasons = append(t.Reasons, Reason{Kind: StateRefusing, Text: "clients are refused by " +
			namesOf(services, StateRefusing)})
	}
	if r := t.LastReload; r != nil && !r.OK {
		degraded++
		t.Reasons = append(t.Reasons,
			Reason{Kind: KindReload, Text: "the last reload failed: " + r.Error, Since: &r.Time})
	}
	if len(t.Pending) > 0 {
		degraded++
		var arguments []string
		for _, p := range t.Pending {
			arguments = append(arguments, p.Argument)
		}
		t.Reasons = append(t.Reasons, Reason{Kind: KindPending,
			Text: "changes wait for a restart or an upgrade: " + strings.Join(arguments, ", ")})
	}
	if r, are := unexposed(exposed); are {
		degraded++
		t.Reasons = append(t.Reasons, r)
	}
	if t.Degraded > 0 {
		t.Reasons = append(t.Reasons, Reason{Kind: StateDegraded, Text: "degraded: " +
			namesOf(services, StateDegraded)})
	}
	t.State = stateOf(t.Refusing, degraded)
}

// namesOf lists the services in a state, at most three of them by name.
func namesOf(services []Service, state string) string {
	const most = 3
	var names []string
	n := 0
	for i := range services {
		if services[i].State != state {
			continue
		}
		if n++; n <= most {
			names = append(names, services[i].Name)
		}
	}
	text := strings.Join(names, ", ")
	if n > most {
		text += fmt.Sprintf(" and %d more", n-most)
	}
	return text
}
