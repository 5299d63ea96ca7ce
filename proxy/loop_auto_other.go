//go:build !linux

package proxy

func newEngine(o Options) (engine, *budget, error) { return newPortableEngine(o) }
