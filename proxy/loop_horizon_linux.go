package proxy

import "time"

// A horizon is the instant up to which a loop has handled everything that arrived. Timers fire by the horizon, not by
// the clock. After a standstill (SIGSTOP, a frozen cgroup, a suspended virtual machine), a process finds due timers
// together with data that arrived meanwhile. The data must be handled first.
type horizon struct {
	at    time.Duration // the horizon, by the loop's clock
	mark  time.Duration // an instant before the first of the turns counted in turns
	turns int           // consecutive turns that have left something for later
}

// patientTurns is how many turns timers wait for a loop that does not catch up: enough to empty a full socket buffer of
// UDP datagrams. A loop with many sockets needs more turns, see runTurn.
const patientTurns = 256

// turned records the end of a turn. before is an instant before the turn read events. all says that the turn handled
// everything that had arrived by then. After most consecutive turns without all, the horizon moves anyway.
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
