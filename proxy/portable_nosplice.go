//go:build !linux

package proxy

// There are no pipes without splice(2).
const maxPipes, loopPipes = 0, 0

type pipe struct{}

type pipePool struct{}

// newPipePool returns nil, which makes movers go by read and write.
func newPipePool(int) *pipePool { return nil }

func (*pipePool) close() {}
