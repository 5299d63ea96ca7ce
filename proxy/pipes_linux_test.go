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

// withoutPipes makes bulk go by read and write.
func withoutPipes(e engine) {
	switch e := e.(type) {
	case *portable:
		e.pipes.mu.Lock()
		defer e.pipes.mu.Unlock()
		e.pipes.max = 0
	case *loopEngine:
		for _, l := range e.loops {
			l.do(func() { l.pipes.max = 0 })
		}
	}
}
