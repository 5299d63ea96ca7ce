package discovery

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// This file decides what an answer of Consul means. The code in this file is pure: it sends no queries, does not wait,
// and keeps no state.
//
// Consul answers a query with an index when its state has moved past that index, or when the wait is over. The answer
// to a query with an index cannot be trusted blindly:
//
//  - The index can go back when servers are restored from a snapshot, or a development agent is restarted. A watch that
//    keeps the old index gets no answer until the new state has caught up.
//  - An agent that does not know the truth answers 200 with an empty list and index 1 when the wait is over. The agent
//    may have been restarted, may have lost its servers, or does not know the token.
//  - The index can move without a change of the contents, and the contents can change without a change of the index.
//
// An answer to a query without an index comes from the servers. The leader confirms the answer if the query asks for
// that.
//
// TestJudgeKeepsItsInvariants checks these invariants:
//
//  1. Only a believed answer changes the set.
//  2. An answer with a lower index than its query is not believed.
//  3. An answer that makes the set empty or sharply smaller is believed only if the leader confirms it (see Guard).
//  4. Only a believed answer removes a held endpoint from the set. Such an answer shows that the endpoint was removed
//     on purpose, or comes after the end of the hold or after failed probes, or has as many new endpoints as are held.
//  5. After an error or an answer that is not believed, the next query has no index. While endpoints are hidden,
//     queries have no index either.
//  6. An endpoint that leaves the set is reported, or stays in belief.vanished until it is reported. There are two
//     exceptions: no service is interested and there are more than maxVanished, or the token may not see all instances.
//  7. An endpoint that may be hidden because the token lost a right stays in the set.

// A question says what the next query asks for.
type question struct {
	index  uint64 // Consul answers once its state is past index; zero: its servers answer at once
	leader bool   // the leader must confirm the answer; only without an index
}

// A belief is what a watch considers true between two answers. A watch without an answer has the zero belief. The
// slices and maps of a belief are never changed in place.
type belief struct {
	set []lb.Endpoint // endpoints of the last believed answer, and held and hidden ones; sorted by ID

	// held contains the endpoints of the set that the last believed answer no longer counts, by ID.
	held map[string]hold

	// joined contains the places of endpoints that came into the set while other endpoints were held.
	joined map[lb.Place]bool

	// hidden contains endpoints of the set, by ID, that the last believed answer did not name. The reason may only be
	// that the token has lost a right. Hidden endpoints are not held.
	hidden map[string]bool

	// full says that an answer without an index has been believed. filtered says that the token may not see all
	// instances, and that this is not new.
	full, filtered bool

	// index is the index of the last believed answer. known contains the instances that this answer names.
	index uint64
	known []Instance

	// out contains endpoints that left the set and that the last believed answer still names at the same address, with
	// the reason. The watch follows these endpoints until they return or vanish.
	out []lb.Departure

	// vanished contains endpoints that left the set and that the last believed answer does not name. Vanished endpoints
	// were not reported, because the leader has not confirmed the loss, or because no service is interested.
	vanished []lb.Endpoint
}

// maxVanished is how many vanished endpoints are remembered while no service is interested in them.
const maxVanished = 64

// An evidence value is an answer, with everything else that judge takes into account.
type evidence struct {
	now      time.Time
	asked    question
	index    uint64 // index of the answer
	filtered bool   // the token may not see all instances; only answers without an index say so
	denies   bool   // Consul denies access by default: a token needs rights to see instances
	kind     queryKind
	in       instances
	interest Leaves // how much the services want to know about vanished endpoints

	records     map[string]record // records of the nodes in belief.puzzles, by name; unknown ones are missing
	probed      bool              // held endpoints can be probed
	unreachable map[string]bool   // held endpoints that probes no longer reach, by ID

	lost *[]lb.Endpoint // the result of lostOf; nil: lostOf was not called
}

// lostOf returns the result of lostFrom for the set of b, and computes it only once. b is the belief that is judged by
// e.
func (e *evidence) lostOf(b *belief) []lb.Endpoint {
	if e.lost == nil {
		lost := lostFrom(b.set, e.in)
		e.lost = &lost
	}
	return *e.lost
}

// A verdict is the result of judging an evidence value.
type verdict struct {
	doubt  string // why the answer is not believed; empty: the answer is believed
	denied bool   // the token seems to have lost a right
	belief belief // the new belief; unchanged if the answer is not believed
	next   question

	told     []lb.Departure // endpoints that the answer names and that are not in the set, and why not
	toldAnew bool           // told differs from the one after the last answer
	gone     []lb.Endpoint  // lost endpoints; the leader has confirmed the loss
	hidden   int            // number of endpoints that have vanished, or that the token may no longer see
}

// wentBack is the doubt about an answer with a lower index than its query.
const wentBack = "index went back"

// judge returns the verdict on e. g must have its defaults.
func (b belief) judge(g Guard, e evidence) verdict {
	if e.index < e.asked.index {
		return verdict{doubt: wentBack, belief: b}
	}
	if e.asked.index != 0 && e.denies && len(b.unnamed(&e)) > 0 {
		// Only an answer without an index says whether the token may have lost a right.
		return verdict{doubt: "instances have vanished", belief: b, next: question{leader: true}}
	}
	next, ok := g.hold(b, &e)
	if !ok {
		// A set also becomes sharply smaller, with a valid index, when the token has lost a right. Only the servers say
		// that they left out instances.
		return verdict{doubt: "set is sharply smaller", belief: b, next: question{leader: true}}
	}
	told, lost := b.departures(e.in, next.set)
	next.full, next.filtered = b.full, b.filtered
	if e.asked.index == 0 {
		next.full, next.filtered = true, e.filtered && len(next.hidden) == 0
	}
	next.index, next.known, next.out, next.vanished = e.index, e.in.all, followed(told), lost
	v := verdict{
		belief:   next,
		next:     question{index: max(e.index, 1)}, // with index 0, Consul would answer at once, again and again
		told:     told,
		toldAnew: !slices.Equal(b.out, told),
		denied:   len(next.hidden) > 0,
	}
	if v.denied {
		v.next = question{} // only an answer without an index shows that the token has the right again
	}
	switch {
	case len(lost) == 0:
	case e.interest == LeavesIgnored:
		v.belief.vanished = lost[:min(len(lost), maxVanished)] // the latest come first
	case !e.asked.leader:
		v.next = question{leader: true}
	case e.filtered:
		v.belief.vanished, v.hidden = nil, len(lost)
	default:
		v.belief.vanished, v.gone = nil, lost
	}
	return v
}

// nextQuestion returns q, or a question to the leader if a service has become interested in vanished endpoints.
func (b belief) nextQuestion(q question, interest Leaves) question {
	if len(b.vanished) > 0 && interest > LeavesIgnored {
		return question{leader: true}
	}
	return q
}

// notHeld returns how many endpoints of the set are not held.
func (b belief) notHeld() int { return len(b.set) - len(b.held) }

// letGoLast returns when the last hold ends; zero: no endpoint is held.
func (b *belief) letGoLast() time.Time {
	var last time.Time
	for _, h := range b.held {
		if h.until.After(last) {
			last = h.until
		}
	}
	return last
}

// letGo returns when the first hold ends; zero: no endpoint is held.
func (b belief) letGo() time.Time {
	var first time.Time
	for _, h := range b.held {
		if first.IsZero() || h.until.Before(first) {
			first = h.until
		}
	}
	return first
}
