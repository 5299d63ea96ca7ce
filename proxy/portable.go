package proxy

// portable is the engine that works on every system: goroutines over package net.
type portable struct {
	budget *budget
	pipes  *pipePool
}

func newPortable(b *budget) *portable {
	return &portable{budget: b, pipes: newPipePool()}
}

// close gives back what the engine holds once its sockets are closed.
func (e *portable) close() { e.pipes.close() }
