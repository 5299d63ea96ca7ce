package sys

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Pipe holds the two ends of a pipe, see pipe(7). Both ends are non-blocking.
type Pipe struct{ R, W int32 }

// OpenPipe opens a pipe.
func OpenPipe() (Pipe, syscall.Errno) {
	var p Pipe // Pipe has the layout that pipe2(2) fills in: read end first
	err := faultDenied(CallPipe)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&p)), unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	return p, err
}

// Close closes both ends.
func (p Pipe) Close() {
	Close(p.R)
	Close(p.W)
}

// Resize asks the kernel to change the capacity of the pipe to size bytes.
func (p Pipe) Resize(size int) syscall.Errno {
	err := faultDenied(CallPipeSize)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_FCNTL, uintptr(p.W), unix.F_SETPIPE_SZ, uintptr(size))
	}
	return err
}

// Capacity returns the capacity of the pipe in bytes. If the system does not provide it, Capacity returns 64 KiB, the
// usual capacity according to pipe(7).
func (p Pipe) Capacity() int {
	size, _ := unix.FcntlInt(uintptr(p.W), unix.F_GETPIPE_SZ, 0)
	if size <= 0 {
		return 64 << 10
	}
	return size
}

// Read reads bytes that a destination has left in the pipe. Read returns EIO if the pipe is at its end.
func (p Pipe) Read(b []byte) (int, syscall.Errno) {
	for {
		base := unsafe.Pointer(unsafe.SliceData(b))
		n, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(p.R), uintptr(base), uintptr(len(b)))
		switch {
		case err == unix.EINTR:
		case err == 0 && n == 0:
			return 0, unix.EIO
		default:
			return int(n), err
		}
	}
}

// Unload returns the n bytes that a destination has left in the pipe.
func (p Pipe) Unload(n int) ([]byte, error) {
	b := make([]byte, n)
	for at := 0; at < n; {
		m, err := p.Read(b[at:])
		if err != 0 {
			return nil, os.NewSyscallError("read", err)
		}
		at += m
	}
	return b, nil
}
