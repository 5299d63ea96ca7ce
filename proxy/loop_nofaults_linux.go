//go:build !faults

package proxy

import "syscall"

// Without the build tag faults these are nothing, see loop_faults_linux.go.

const faults = false

func faultIO(_ int32, n int) (int, syscall.Errno) { return n, 0 }

func faultAccept() syscall.Errno { return 0 }

func faultWatched(int, int32, uint32, int32, int) {}
