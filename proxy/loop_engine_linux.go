package proxy

import (
	"context"
	"runtime"
	"sync"
)

// loopEngine is the engine for Linux: event loops, one for each processor that Go may use.
type loopEngine struct {
	*portable // for UDP
	loops     []*loop
	running   sync.WaitGroup
	ctx       context.Context // ends lookups
	cancel    context.CancelFunc
	lookups   sync.WaitGroup
}

func newLoopEngine(n int, b *budget) (engine, error) {
	e := &loopEngine{portable: newPortable(b)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for i := range n {
		l, err := newLoop(i, n)
		if err != nil {
			e.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
		e.running.Go(l.run)
	}
	return e, nil
}

func (e *loopEngine) shards() int { return len(e.loops) }

// close ends the loops, once their sockets are closed.
func (e *loopEngine) close() {
	e.cancel()
	e.lookups.Wait()
	for _, l := range e.loops {
		l.post(func() { l.stopped = true })
	}
	e.running.Wait()
	e.portable.close()
}
