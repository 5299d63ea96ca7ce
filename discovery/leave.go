package discovery

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// Leaves says how much is to be found out of endpoints that leave a service. That one is critical, or has a status that does not count, answers
// tell by themselves, and the sink is told of it in any case. One that has vanished from the answers has been deregistered, or does not match
// the query any more; and an agent that is wrong makes endpoints vanish too.
type Leaves int

// What is to be found out of endpoints that vanish.
const (
	// LeavesIgnored asks nothing, and the sink is not told of them.
	LeavesIgnored Leaves = iota

	// LeavesConfirmed asks Consul's leader whether they have really gone.
	LeavesConfirmed

	// LeavesExplained asks besides whether they are registered still. If that cannot be learnt, the sink is told of both reasons.
	LeavesExplained
)

const (
	explainTimeout = 5 * time.Second // of the query that is to tell why endpoints have vanished
	maxUnsure      = 64              // vanished endpoints that are kept in mind while nobody wants to know
	maxUntold      = 1024            // that have left and that a sink without a set waits to be told of
)

// sortOut looks at all endpoints that are not in the set any more, or have not been for a while, after an answer that came to in. It returns
// those that the answer tells of, and why they are out, and those that have vanished.
func (w *watch) sortOut(in instances, set []lb.Endpoint) (told []lb.Departure, lost []lb.Endpoint) {
	if len(w.left)+len(w.unsure) == 0 && slices.Equal(w.endpoints, set) {
		return nil, nil
	}
	here := make(map[place]bool, len(set))
	for _, e := range set {
		here[placeOf(e)] = true
	}
	former := slices.Concat(w.endpoints, w.unsure)
	for _, d := range w.left {
		former = append(former, d.Endpoint)
	}
	type key struct {
		id string
		at place
	}
	seen := map[key]bool{}
	for _, e := range former {
		at := placeOf(e)
		if here[at] || seen[key{e.ID, at}] { // an endpoint at its address is the same process, whatever its name
			continue
		}
		seen[key{e.ID, at}] = true
		i, named := slices.BinarySearchFunc(in.all, e.ID, func(a Instance, id string) int { return strings.Compare(a.ID, id) })
		if !named {
			lost = append(lost, e)
			continue
		}
		told = append(told, lb.Departure{Endpoint: e, Why: in.all[i].why(at)})
	}
	slices.SortFunc(told, func(a, b lb.Departure) int { return strings.Compare(a.ID+a.Address(), b.ID+b.Address()) })
	return told, lost
}

// why is why an instance that Consul names is not in the set at the given place.
func (one *Instance) why(at place) lb.Reasons {
	switch {
	case one.Out == OutAddress || placeOf(one.Endpoint) != at:
		return lb.Deregistered // there
	case one.Out == OutMaintenance, one.Out == OutStatus && one.Status == statusCritical:
		return lb.Critical
	}
	return lb.Unmatched
}

const statusCritical = "critical"

// moved tells whether sortOut has found that an instance is not at the endpoint's address any more. Nothing else will be said of that one: to be
// told of it once is enough, and an instance may move for ever.
func moved(d lb.Departure) bool { return d.Why == lb.Deregistered }

// pursue sees to it that the sink is told of the vanished, if anybody wants to know. Confirmed says that the answer in which they are missing
// is the leader's.
func (w *watch) pursue(ctx context.Context, lost []lb.Endpoint, a *answer, confirmed bool) {
	if w.unsure = lost; len(lost) == 0 {
		return
	}
	interest := w.interest()
	switch {
	case interest == LeavesIgnored:
		w.unsure = slices.Clone(lost[:min(len(lost), maxUnsure)]) // the latest come first
		return
	case !confirmed:
		w.confirm, w.index = true, 0
		return
	}
	w.unsure = nil
	if a.filtered {
		w.log().Debug("endpoints have vanished, or the token may not see them any more", "endpoints", len(lost))
		return
	}
	left := w.reasons(ctx, lost, interest == LeavesExplained)
	w.log().Debug("endpoints have left", "endpoints", len(left))
	w.sending.Lock()
	defer w.sending.Unlock()
	for _, f := range w.feeds {
		f.deliver(w, w.endpoints, w.available, false, left)
	}
}

// interest is how much the services that want the query want to know of endpoints that leave.
func (w *watch) interest() (most Leaves) {
	w.sending.Lock()
	defer w.sending.Unlock()
	for _, f := range w.feeds {
		most = max(most, Leaves(f.leaves.Load()))
	}
	return most
}

// reasons returns why endpoints have vanished: as exactly as that can be told without asking, or exactly.
func (w *watch) reasons(ctx context.Context, lost []lb.Endpoint, exactly bool) (left []lb.Departure) {
	q, why := w.query, lb.Deregistered
	switch {
	case q.Prepared != "":
		why |= lb.Critical | lb.Unmatched // which it leaves out by itself
	case len(q.Tags) > 0 || q.Filter != "":
		why |= lb.Unmatched
	}
	var registered map[[2]string]bool
	if exactly && why == lb.Deregistered|lb.Unmatched {
		q.Tags, q.Filter = nil, ""
		registered = w.registered(ctx, &q)
	}
	for _, e := range lost {
		one := why
		switch {
		case registered == nil:
		case registered[[2]string{e.ID, e.Address()}]:
			one = lb.Unmatched
		default:
			one = lb.Deregistered
		}
		left = append(left, lb.Departure{Endpoint: e, Why: one})
	}
	return left
}

// registered returns what q comes to, by ID and address, whatever its health; nil if that cannot be learnt.
func (w *watch) registered(ctx context.Context, q *Query) map[[2]string]bool {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	if slots := w.consul.slots; slots != nil {
		if slots.acquire(ctx, true) != nil {
			return nil
		}
		defer slots.release(true)
	}
	w.count(func(s *WatchStatus) { s.Queries++ })
	a, err := w.consul.health(ctx, q, ask{consistent: true})
	if err != nil || a.filtered {
		w.log().Debug("why endpoints have vanished is not known", "error", err, "token_may_not_see_all", a.filtered)
		return nil
	}
	all := make(map[[2]string]bool, len(a.entries))
	for _, one := range convert(a.entries, q.Statuses).all {
		all[[2]string{one.ID, one.Address()}] = true
	}
	return all
}

// nudge has a watch that knows of vanished endpoints ask about them, because somebody may want to know now who did not before.
func (w *watch) nudge() {
	if end := w.nudged.Load(); end != nil {
		(*end)(errTurn)
	}
}

// nudgeable has nudge end the query that cancel ends.
func (w *watch) nudgeable(cancel context.CancelCauseFunc) {
	w.nudged.Store(&cancel)
	if w.interest() > LeavesIgnored { // since just now
		cancel(errTurn)
	}
}
