//go:build !linux

package proxy

func newEngine(o Options, d *denials) (engine, *budget, error) { return newPortableEngine(o, d) }
