//go:build !linux && !freebsd

package testproc

import "syscall"

func bind(*syscall.SysProcAttr) {}
