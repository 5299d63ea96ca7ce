//go:build !unix

package main

import "os"

// Signal never comes here.
var Signal os.Signal = os.Kill
