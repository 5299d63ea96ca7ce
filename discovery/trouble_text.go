package discovery

import (
	"errors"
	"fmt"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// This file has the words for troubles, in the log and in events.

// beginLocked logs that a trouble has begun for services.
func (t *troubles) beginLocked(one *trouble, services []string) {
	about := []any{"services", len(services), "names", shortNames(services), "since", clock(one.since)}
	say := func(message string, more ...any) { t.log.Warn(message, append(about, more...)...) }
	err := one.err
	if one.chain {
		t.log.Error("lictor cannot follow a discovery chain, the services keep the endpoints that they have",
			append(about, "reason", chainReason(err))...)
		return
	}
	switch one.kind {
	case consul.Refused:
		t.log.Error("consul refuses a query", append(about, "filter", one.filter, "reason", consul.Reason(err))...)
	case consul.Unable:
		say("consul cannot answer a query, the services' endpoints stay as they are", "about", one.place, "error", err)
	case consul.Denied:
		t.log.Error("consul denies access: the ACL token is wrong or lacks a right; "+
			"endpoints that it hides stay in use",
			append(about, "rights_needed", "service:read, node:read", "error", err)...)
	case consul.Throttled:
		say("consul refuses requests: too many at once from this host; "+
			"until consul accepts them, endpoints stay as they are, "+
			"and services without endpoints stay without", "error", err,
			"see", "limits.http_max_conns_per_client in the agent's configuration, or use its https port")
	case consul.Lost:
		switch {
		case t.ever:
			say("consul is lost, endpoints stay as they are", "error", err)
		case t.hasSaved:
			say("consul cannot be reached, saved endpoints stay in use until consul answers", "error", err)
		default:
			say("consul cannot be reached, services have no endpoints until consul answers", "error", err)
		}
	}
}

// begunLocked sends the event that a trouble has begun for services.
func (t *troubles) begunLocked(one *trouble, services []string) {
	if one.chain {
		t.send(EventStale, services, fmt.Sprintf("Lictor cannot follow the discovery chain since %s (%s); "+
			"%s keep%s what endpoints there are%s", clock(one.since), chainReason(one.err), subject(services),
			verbEnd(services), list(services)))
		return
	}
	t.send(EventStale, services, fmt.Sprintf("%s since %s (%s); %s", one.what(), clock(one.since),
		consul.OneLine(one.err.Error()), t.consequenceLocked(services)))
}

// what says what is wrong in a trouble.
func (one *trouble) what() string {
	switch one.kind {
	case consul.Refused:
		return "Consul refuses the query"
	case consul.Unable:
		return "Consul cannot answer for " + one.place
	case consul.Denied:
		return "Consul denies access"
	case consul.Throttled:
		return "Consul refuses requests, because too many come from this host"
	}
	return "Consul does not answer"
}

// consequenceLocked says what services do while they are in trouble.
func (t *troubles) consequenceLocked(services []string) string {
	who, keep, have := subject(services), "keep their", "have"
	if len(services) == 1 {
		keep, have = "keeps its", "has"
	}
	switch {
	case t.ever:
		return fmt.Sprintf("%s %s last endpoints%s", who, keep, list(services))
	case t.hasSaved:
		return fmt.Sprintf("%s %s saved endpoints%s", who, keep, list(services))
	}
	return fmt.Sprintf("%s %s no endpoints until this ends%s", who, have, list(services))
}

// chainReason returns why Lictor cannot follow a discovery chain.
func chainReason(err error) string {
	var chain *ChainError
	if errors.As(err, &chain) {
		return chain.Reason
	}
	return consul.OneLine(err.Error())
}

// verbEnd returns the end of a verb whose subject is subject(services).
func verbEnd(services []string) string {
	if len(services) == 1 {
		return "s"
	}
	return ""
}

// subject returns the services as the subject of a sentence.
func subject(services []string) string {
	if len(services) == 1 {
		return "the service"
	}
	return fmt.Sprint(len(services), " services")
}

// list returns some names of several services, for the end of a sentence.
func list(services []string) string {
	if len(services) == 1 {
		return ""
	}
	return ": " + shortNames(services)
}

// endedLocked logs that a trouble is over for services, and sends the event.
func (t *troubles) endedLocked(one *trouble, services []string) {
	after := one.answered.Sub(one.since)
	about := []any{"services", len(services), "names", shortNames(services), "after", after.Round(time.Millisecond)}
	if n := len(one.watches); n > 0 {
		about = append(about, "queries_still_failing", n)
	}
	what, event := "consul answers again", "Consul answers again"
	switch {
	case one.chain:
		what, event = "lictor follows the discovery chain again", "Lictor follows the discovery chain again"
	case one.kind == consul.Refused:
		what, event = "consul answers the query", "Consul answers the query"
	case one.kind == consul.Unable:
		what, event = "consul answers the query", "Consul answers for "+one.place+" again"
		about = append(about, "about", one.place)
	case one.kind == consul.Denied:
		what, event = "consul permits access again", "Consul permits access again"
	case one.kind == consul.Throttled:
		what, event = "consul accepts all requests again", "Consul accepts all requests again"
	}
	t.log.Info(what, about...)
	are := "are"
	if len(services) == 1 {
		are = "is"
	}
	t.send(EventRecovered, services, fmt.Sprintf("%s after %v; %s %s fresh%s", event, after.Round(time.Second),
		subject(services), are, list(services)))
}

func (t *troubles) send(kind EventKind, services []string, text string) {
	if t.onEvent != nil {
		t.onEvent(Event{Services: services, Kind: kind, Text: text})
	}
}
