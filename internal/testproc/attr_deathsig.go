//go:build linux || freebsd

package testproc

import "syscall"

// attributes asks the kernel to kill the process when its owner dies, however that dies: a test that times out
// leaves nothing behind.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
