package proxy

import "github.com/lictor-proxy/lictor/lb"

// portable is the engine that works on every system: goroutines over package net.
type portable struct {
	budget *budget
	pipes  *pipePool
	roster roster
	crowds crowds
}

func newPortable(b *budget) *portable {
	return &portable{budget: b, pipes: newPipePool(maxPipes), crowds: crowds{all: map[lb.Place]*portableCrowd{}}}
}

func (e *portable) shards() int { return 1 }

// forking needs nothing: package net tells epoll, or what the system has instead, of each socket that it closes.
func (e *portable) forking(bool) {}

func (e *portable) close() { e.pipes.close() }
