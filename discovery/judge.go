package discovery

import (
	"slices"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// This file decides what an answer of Consul means. It is pure: it asks nobody, waits for nothing and keeps nothing.
//
// A query with an index is answered when Consul's state has moved past that index, or when the wait is over. Such an
// answer cannot be trusted blindly:
//
//   - The index can go back: servers were restored from a snapshot, or a development agent was restarted. A watch
//     that goes on with the old index hears nothing until the new state has caught up.
//   - An agent that does not know the truth answers 200, an empty list and index 1 when the wait is over. It has just
//     been restarted, its servers are away, or the token is unknown.
//   - The index moves without a change of the contents, and the contents change without a change of the index.
//
// An answer to a query without an index comes from the servers. The leader confirms it if the query asks for that.
//
// Invariants, which TestJudgeKeepsItsInvariants holds:
//
//  1. The set changes by a believed answer only.
//  2. An answer is not believed if its index is lower than the one that was asked with.
//  3. An answer that makes the set empty or sharply smaller is believed only if the leader confirms it (see Guard).
//  4. A held endpoint leaves the set only by a believed answer: one that disposes of it, one that comes after its
//     time, one that comes when probes do not reach it any more, or one with as many new endpoints as are held.
//  5. After an answer that is not believed, and after an error, the next query has no index. The same holds while
//     endpoints are hidden.
//  6. An endpoint that leaves the set is reported, or is in belief.vanished until it is. There are two exceptions:
//     nobody wants to know and there are more than maxVanished, or the token may not see all instances.
//  7. An endpoint that the loss of a right may hide stays in the set.

// A question says what the next query asks for.
type question struct {
	index  uint64 // Consul answers once its state is past it; zero: its servers answer at once
	leader bool   // the leader is to confirm the answer; only without an index
}

// A belief is what a watch takes for true between two answers. The zero belief is that of a watch without an answer.
// The slices and the map are not changed once they are in a belief.
type belief struct {
	set []lb.Endpoint // what the last believed answer came to, and what is held; sorted by ID

	// held are the endpoints of the set that the last believed answer did not come to, by ID.
	held map[string]hold

	// joined are the places of endpoints that came into the set while others were held.
	joined map[place]bool

	// hidden are the endpoints of the set that the last believed answer did not name, perhaps only because the token
	// has lost a right, by ID. They are not held.
	hidden map[string]bool

	// full is whether there has been a believed answer without an index, and filtered whether the token may see less
	// than there is for reasons that are not new.
	full, filtered bool

	// index is that of the last believed answer, and known are the instances that it names.
	index uint64
	known []Instance

	// out are endpoints that left the set and that the last believed answer names at the same address, and why they are
	// out. They are followed until they return or vanish.
	out []lb.Departure

	// vanished are endpoints that left the set and that the last believed answer does not name. Nothing was reported of
	// them, because the leader has not confirmed it, or because nobody wants to know.
	vanished []lb.Endpoint
}

// maxVanished is how many vanished endpoints are remembered while nobody wants to know of them.
const maxVanished = 64

// An evidence value is an answer, with everything else that judge takes into account.
type evidence struct {
	now      time.Time
	asked    question
	index    uint64 // of the answer
	filtered bool   // the token may not see everything that there is; only answers without an index say so
	denies   bool   // a token needs rights to see instances
	kind     queryKind
	in       instances
	interest Leaves // how much the services want to know of endpoints that vanish

	records     map[string]record // of the nodes in belief.puzzles, by name; one that could not be asked is missing
	probed      bool              // endpoints that are held can be probed
	unreachable map[string]bool   // held endpoints that probes do not reach any more, by ID

	lost *[]lb.Endpoint // what lostOf has returned; nil: it was not called
}

// lostOf returns what lostFrom does of the set of b, which is the belief that is judged by e.
func (e *evidence) lostOf(b *belief) []lb.Endpoint {
	if e.lost == nil {
		lost := lostFrom(b.set, e.in)
		e.lost = &lost
	}
	return *e.lost
}

// A verdict is what follows from evidence.
type verdict struct {
	doubt  string // why the answer is not believed; empty: it is
	denied bool   // the token seems to have lost a right
	belief belief // what is believed now; as before if the answer is not believed
	next   question

	told     []lb.Departure // endpoints that are not in the set and that the answer names, and why they are out
	toldAnew bool           // told is not what it was after the last answer
	gone     []lb.Endpoint  // endpoints that have vanished, which the leader confirms
	hidden   int            // how many more have vanished, unless the token lost the right to see them
}

// wentBack is the doubt of an answer whose index is lower than the one that was asked with.
const wentBack = "index went back"

// judge returns what follows from e. The guard has its defaults.
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
		// A token that lost a right looks like this too, at a good index. Only the servers say that they left something
		// out.
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
		next:     question{index: max(e.index, 1)}, // with 0, Consul would answer at once, again and again
		told:     told,
		toldAnew: !slices.Equal(b.out, told),
		denied:   len(next.hidden) > 0,
	}
	if v.denied {
		v.next = question{} // only such an answer shows that the token has the right again
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

// nextQuestion returns q, or a question to the leader if a service has begun to take an interest in vanished
// endpoints.
func (b belief) nextQuestion(q question, interest Leaves) question {
	if len(b.vanished) > 0 && interest > LeavesIgnored {
		return question{leader: true}
	}
	return q
}

// notHeld returns how many endpoints of the set are not held.
func (b belief) notHeld() int { return len(b.set) - len(b.held) }

// letGoLast returns when the last of the held endpoints is to be let go; zero: none is held.
func (b *belief) letGoLast() time.Time {
	var last time.Time
	for _, h := range b.held {
		if h.until.After(last) {
			last = h.until
		}
	}
	return last
}

// letGo returns when the first of the held endpoints is to be let go; zero: none is held.
func (b belief) letGo() time.Time {
	var first time.Time
	for _, h := range b.held {
		if first.IsZero() || h.until.Before(first) {
			first = h.until
		}
	}
	return first
}
