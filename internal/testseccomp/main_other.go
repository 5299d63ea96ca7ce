//go:build !linux

package testseccomp

// Main does nothing here.
func Main() {}
