package proxy

func newEngine(o Options, d *denials) (engine, *budget, error) {
	if o.Engine == EnginePortable {
		return newPortableEngine(o, d)
	}
	return newLoopEngine(o, d)
}
