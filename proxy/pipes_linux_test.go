package proxy

// pipePools are the pools of an engine.
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

// pipeSum adds up what of returns for each pool of an engine, with the pool locked.
func pipeSum(e engine, of func(pp *pipePool) int) (n int) {
	for _, pp := range pipePools(e) {
		pp.mu.Lock()
		n += of(pp)
		pp.mu.Unlock()
	}
	return n
}

// pipesOpen is how many pipes an engine has open.
func pipesOpen(e engine) int { return pipeSum(e, func(pp *pipePool) int { return pp.total }) }

// pipesLent is how many of them are in use.
func pipesLent(e engine) int {
	return pipeSum(e, func(pp *pipePool) int { return pp.total - len(pp.unused) })
}

// pipeLoans is how often one was lent.
func pipeLoans(e engine) int { return pipeSum(e, func(pp *pipePool) int { return int(pp.loans) }) }

// withoutPipes makes bulk go by read and write.
func withoutPipes(e engine) { pipeSum(e, func(pp *pipePool) int { pp.max = 0; return 0 }) }
