//go:build !unix

package daemon

// descriptorLimit is zero: there is none to be told.
func descriptorLimit() int64 { return 0 }

func ignorePipes() {}
