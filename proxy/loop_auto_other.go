//go:build !linux

package proxy

func newEngine(_ Options, b *budget) (engine, error) { return newPortable(b), nil }
