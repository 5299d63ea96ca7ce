//go:build !linux

package proxy

import "github.com/lictor-proxy/lictor/proxy/internal/sys"

// There are no pipes without splice(2).
const maxPipes, loopPipes = 0, 0

type pipe struct{}

type pipePool struct{}

func newPipePool(int, *sys.Denials) *pipePool { return nil }

// usable is false, which makes movers go by read and write.
func (*pipePool) usable() bool { return false }

func (*pipePool) close() {}
