//go:build !linux

package testseccomp

// Main does nothing on this system.
func Main() {}
