//go:build !unix

package main

import "os"

// resizes returns a nil channel, because this system does not tell when the size of the terminal changes.
func resizes() (<-chan os.Signal, func()) { return nil, func() {} }
