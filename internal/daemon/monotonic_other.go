//go:build !linux

package daemon

import "time"

// monotonic returns zero. Only systemd needs the clock, and systemd exists on Linux only.
func monotonic() time.Duration { return 0 }
