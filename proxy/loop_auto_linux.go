package proxy

func newEngine(o Options) (engine, *budget, error) {
	if o.Engine == EnginePortable {
		return newPortableEngine(o)
	}
	return newLoopEngine(o)
}
