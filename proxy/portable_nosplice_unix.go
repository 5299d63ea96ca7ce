//go:build unix && !linux

package proxy

import "errors"

// Without splice(2) the methods below are never called, because movers splice only if pipes are usable.

func (m *mover) spliceSome() error         { return errors.ErrUnsupported }
func (m *mover) gaugeRoom(fd uintptr) bool { return true }
func (m *mover) fillPipe(fd uintptr) bool  { return true }
func (m *mover) drainPipe(fd uintptr) bool { return true }
