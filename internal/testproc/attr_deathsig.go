//go:build linux || freebsd

package testproc

import "syscall"

// bind makes the kernel kill the process when its owner dies in any way. A test that times out leaves nothing behind.
func bind(attributes *syscall.SysProcAttr) {
	attributes.Setpgid, attributes.Pdeathsig = true, syscall.SIGKILL
}
