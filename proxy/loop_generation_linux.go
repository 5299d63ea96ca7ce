package proxy

// A loop reuses a pair or a session for another client after it has ended. Each use has a serial number, which becomes
// 0 when the use ends. A callback that returns to the loop later, from a resolver or a queue, holds a generation. The
// callback first checks with isOver whether its pair or session still serves the same client.

// newSerial returns the serial number for the next use of a pair or session of this loop.
func (l *eventLoop) newSerial() uint64 {
	l.serial++
	return l.serial
}

// A generation identifies one use of a pair or session.
type generation struct {
	current *uint64 // serial number of the pair or session now
	serial  uint64
}

// thisUse returns the generation of the pair's current use.
func (p *loopPair) thisUse() generation { return generation{&p.serial, p.serial} }

// thisUse returns the generation of the session's current use.
func (x *loopSession) thisUse() generation { return generation{&x.serial, x.serial} }

// isOver reports whether the use has ended. Only the loop may call isOver.
func (g generation) isOver() bool { return *g.current != g.serial }
