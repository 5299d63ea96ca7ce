// Package handover carries messages and descriptors between a process and the one that is to take its place.
package handover

import "os"

// MaxDescriptors is how many descriptors a message may have: SCM_MAX_FD of Linux, less some for systems with a lower
// limit.
const MaxDescriptors = 200

// CloseAll closes descriptors that came with a message and are of no use.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = os.NewFile(uintptr(fd), "").Close() // nothing was written to it
	}
}
