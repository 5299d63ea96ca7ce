//go:build !linux

package proxy

func newEngine(o Options, b *budget) (engine, error) { return newPortable(b, o.Resolver), nil }
