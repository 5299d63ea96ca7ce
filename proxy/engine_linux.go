package proxy

import "github.com/lictor-proxy/lictor/proxy/internal/sys"

func newEngine(o Options, d *sys.Denials) (engine, *budget, error) {
	if o.Engine == EnginePortable {
		return newPortableEngine(o, d)
	}
	return newLoopEngine(o, d)
}
