package discovery

import (
	"context"
	"slices"

	"github.com/lictor-proxy/lictor/lb"
)

// Static is a Source with sets that never change. Static is safe for concurrent use.
type Static struct {
	sets []lb.Endpoints
}

// NewStatic returns a Static with a copy of sets.
func NewStatic(sets []lb.Endpoints) *Static {
	return &Static{sets: cloneSets(sets)}
}

// Run passes all sets to sink in one update, and waits until ctx ends. Run always returns nil.
func (s *Static) Run(ctx context.Context, sink Sink) error {
	if len(s.sets) > 0 {
		sink.OnUpdate(cloneSets(s.sets))
	}
	<-ctx.Done()
	return nil
}

func cloneSets(sets []lb.Endpoints) []lb.Endpoints {
	sets = slices.Clone(sets)
	for i := range sets {
		sets[i].Endpoints = slices.Clone(sets[i].Endpoints)
	}
	return sets
}
