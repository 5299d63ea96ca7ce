//go:build !linux || !(amd64 || arm64)

package kernel

import "context"

// A Path exists only on Linux.
type Path struct{}

func unsupported() error {
	return &Error{Reason: OtherSystem, Detail: "the kernel path needs Linux on amd64 or arm64"}
}

// Open returns an Error.
func Open(Options) (*Path, error) { return nil, unsupported() }

// Probe returns an Error.
func Probe(string) error { return unsupported() }

// Set returns an Error.
func (*Path) Set(Service) error { return unsupported() }

// Remove does nothing.
func (*Path) Remove(string) error { return nil }

// Counters returns zeros.
func (*Path) Counters(string) (Counters, []EndpointCounters) { return Counters{}, nil }

// Sockets returns an Error.
func (*Path) Sockets(context.Context) ([]Socket, error) { return nil, unsupported() }

// Cut returns an Error.
func (*Path) Cut(string, []uint64) (int, error) { return 0, unsupported() }

// CanCut returns an Error.
func (*Path) CanCut(bool) error { return unsupported() }

// Yield does nothing.
func (*Path) Yield() error { return nil }

// Close does nothing.
func (*Path) Close() error { return nil }
