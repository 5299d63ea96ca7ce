package proxy

func newEngine(e Engine, b *budget) (engine, error) {
	if e == EnginePortable {
		return newPortable(b), nil
	}
	return newLoopEngine(b)
}
