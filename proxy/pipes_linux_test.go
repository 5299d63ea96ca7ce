package proxy

// pipesOpen is how many pipes an engine has open.
func pipesOpen(e engine) int {
	count := func(pp *pipePool) int {
		pp.mu.Lock()
		defer pp.mu.Unlock()
		return pp.open
	}
	switch e := e.(type) {
	case *portable:
		return count(e.pipes)
	case *loopEngine:
		n := 0
		for _, l := range e.loops {
			n += count(l.pipes)
		}
		return n
	}
	return 0
}
