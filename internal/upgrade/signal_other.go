//go:build !unix

package upgrade

import "os"

// Signal never comes here.
var Signal os.Signal = os.Kill
