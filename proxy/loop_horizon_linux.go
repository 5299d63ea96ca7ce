package proxy

import "time"

// A horizon is the instant up to which a loop has looked at all that arrived. Timers fire by it, not by the clock. A
// process that stood still (SIGSTOP, a frozen cgroup, a suspended virtual machine) finds timers that are due together
// with what arrived while it stood still. What arrived comes first.
type horizon struct {
	at    time.Duration // by the loop's clock
	mark  time.Duration // an instant before the first of the turns that follow
	turns int           // that left something for later, one after the other
}

// patientTurns is how many turns timers wait for a loop that does not catch up: enough to empty a full socket buffer of
// UDP datagrams. A loop with many sockets needs more turns, see runTurn.
const patientTurns = 256

// turned is told of each turn. Before is an instant before the turn looked. All says that the turn has handled all that
// had arrived by then. If turns leave something for later, one after the other, the horizon moves after most of them.
func (h *horizon) turned(before time.Duration, all bool, most int) {
	if all {
		h.at, h.turns = before, 0
		return
	}
	if h.turns == 0 {
		h.mark = before
	}
	if h.turns++; h.turns >= most {
		h.at, h.turns = h.mark, 0
	}
}
