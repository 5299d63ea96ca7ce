//go:build !linux && !freebsd

package testproc

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
