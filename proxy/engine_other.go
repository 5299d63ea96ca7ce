//go:build !linux

package proxy

import "github.com/lictor-proxy/lictor/proxy/internal/sys"

func newEngine(o Options, d *sys.Denials) (engine, *budget, error) { return newPortableEngine(o, d) }
