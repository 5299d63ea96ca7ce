package proxy

// portable is the engine that works on every system: goroutines over package net.
type portable struct {
	budget *budget
	pipes  *pipePool
	roster roster
}

func newPortable(b *budget) *portable {
	return &portable{budget: b, pipes: newPipePool(maxPipes)}
}

func (e *portable) shards() int { return 1 }

func (e *portable) close() { e.pipes.close() }
