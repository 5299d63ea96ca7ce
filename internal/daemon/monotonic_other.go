//go:build !linux

package daemon

import "time"

// monotonic is for systemd, which is for Linux.
func monotonic() time.Duration { return 0 }
