//go:build linux || freebsd

package testproc

import "syscall"

// attributes makes the kernel kill the process when its owner dies in any way. A test that times out leaves nothing
// behind.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
