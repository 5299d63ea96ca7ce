//go:build !linux

package proxy

func newEngine(_ Engine, b *budget) (engine, error) { return newPortable(b), nil }
