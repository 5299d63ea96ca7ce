package proxy

func newEngine(o Options, b *budget) (engine, error) {
	if o.Engine == EnginePortable {
		return newPortable(b, o.Resolver), nil
	}
	return newLoopEngine(o.Loops, b, o.Resolver)
}
