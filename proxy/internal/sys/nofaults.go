//go:build !linux || !faults

package sys

// Faults reports whether system calls misbehave at random (build tag faults).
const Faults = false
