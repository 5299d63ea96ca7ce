package proxy

func newEngine(o Options, b *budget) (engine, error) {
	if o.Engine == EnginePortable {
		return newPortable(b), nil
	}
	return newLoopEngine(o.Loops, b)
}
