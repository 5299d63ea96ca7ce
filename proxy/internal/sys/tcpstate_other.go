//go:build unix && !linux

package sys

import "time"

// Gone returns false: the state is unknown on this system.
func Gone(int) bool { return false }

// Unanswered returns 0: the time is unknown on this system.
func Unanswered(int) time.Duration { return 0 }

// Unsent returns 0: the number is unknown on this system.
func Unsent(int) int { return 0 }
