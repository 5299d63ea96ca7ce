package proxy

// pipePools returns the pipe pools of an engine.
func pipePools(e engine) (all []*pipePool) {
	switch e := e.(type) {
	case *portable:
		all = append(all, e.pipes)
	case *loopEngine:
		for _, l := range e.loops {
			all = append(all, l.pipes)
		}
	}
	return all
}

// pipeSum adds up what of returns for each pool of an engine. The pool is locked meanwhile.
func pipeSum(e engine, of func(pp *pipePool) int) (n int) {
	for _, pp := range pipePools(e) {
		pp.mu.Lock()
		n += of(pp)
		pp.mu.Unlock()
	}
	return n
}

// pipesOpen returns how many pipes an engine has open.
func pipesOpen(e engine) int { return pipeSum(e, func(pp *pipePool) int { return pp.total }) }

// pipesLent returns how many pipes are in use.
func pipesLent(e engine) int {
	return pipeSum(e, func(pp *pipePool) int { return pp.total - len(pp.unused) })
}

// pipeLoans returns how often pipes were lent.
func pipeLoans(e engine) int { return pipeSum(e, func(pp *pipePool) int { return int(pp.loans) }) }

// withoutPipes makes bulk transfers use read and write.
func withoutPipes(e engine) { pipeSum(e, func(pp *pipePool) int { pp.max = 0; return 0 }) }
