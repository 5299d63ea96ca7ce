//go:build !unix

package upgrade

import "os"

// Signal is a signal that never arrives on this system.
var Signal os.Signal = os.Kill
