//go:build unix && !linux

package proxy

// goneFD tells nothing here.
func goneFD(int) bool { return false }

// unsentOf tells nothing here.
func unsentOf(int) int { return 0 }
