//go:build !faults

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Without the build tag faults, these functions do nothing; see faults_linux.go.

func faultIO(_ int32, n int) (int, syscall.Errno) { return n, 0 }

func faultMove(_ int32, n int) (int, syscall.Errno) { return n, 0 }

// FaultRoom returns room unchanged.
func FaultRoom(_ int32, room int) int { return room }

func faultDenied(Call) syscall.Errno { return 0 }

func faultAccept() syscall.Errno { return 0 }

func faultConnect(_ int32, err syscall.Errno) syscall.Errno { return err }

func faultError(int32) syscall.Errno { return 0 }

func faultPoll(events []unix.EpollEvent) ([]unix.EpollEvent, syscall.Errno) { return events, 0 }

// FaultHops returns no error.
func FaultHops() syscall.Errno { return 0 }

// FaultPipe returns false: opening pipes does not fail.
func FaultPipe() bool { return false }

func faultWatched(int, int32, *unix.EpollEvent) {}
