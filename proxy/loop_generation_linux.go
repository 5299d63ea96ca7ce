package proxy

// Pairs and sessions are recycled: when one is over, the loop fills it in anew for another client. Each use has a
// serial number, which is 0 once the use is over. What comes back to the loop later, an answer of a resolver or of a
// queue, keeps a generation and asks it first whether its pair or session still serves the same client.

// newSerial returns the number of the next use of a pair or a session of this loop.
func (l *eventLoop) newSerial() uint64 {
	l.serial++
	return l.serial
}

// A generation is one use of a pair or a session.
type generation struct {
	current *uint64 // the serial number of the pair or session
	serial  uint64
}

// thisUse returns the present use of the pair.
func (p *loopPair) thisUse() generation { return generation{&p.serial, p.serial} }

// thisUse returns the present use of the session.
func (x *loopSession) thisUse() generation { return generation{&x.serial, x.serial} }

// isOver reports whether the use has ended. Only the loop may ask.
func (g generation) isOver() bool { return *g.current != g.serial }
