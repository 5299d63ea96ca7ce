//go:build !unix

package daemon

// descriptorLimit returns zero, because this system has no limit that can be read.
func descriptorLimit() int64 { return 0 }

func ignorePipes() {}
