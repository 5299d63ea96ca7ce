//go:build unix && !linux

package sys

// Gone tells nothing here.
func Gone(int) bool { return false }

// Unsent tells nothing here.
func Unsent(int) int { return 0 }
