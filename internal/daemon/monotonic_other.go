//go:build !linux

package daemon

import "time"

// monotonic returns zero: only systemd, which is for Linux, asks for it.
func monotonic() time.Duration { return 0 }
