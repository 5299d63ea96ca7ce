//go:build unix && !linux

package sys

import "time"

// Gone tells nothing here.
func Gone(int) bool { return false }

// Unanswered tells nothing here.
func Unanswered(int) time.Duration { return 0 }

// Unsent tells nothing here.
func Unsent(int) int { return 0 }
