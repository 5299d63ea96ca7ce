//go:build !linux

package proxy

import "github.com/lictor-proxy/lictor/proxy/internal/sys"

// Pipes are used only with splice(2), which these systems do not have.
const maxPipes, loopPipes = 0, 0

type pipe struct{}

type pipePool struct{}

func newPipePool(int, *sys.Denials) *pipePool { return nil }

// usable returns false, so movers use read and write.
func (*pipePool) usable() bool { return false }

func (*pipePool) close() {}
