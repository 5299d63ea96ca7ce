package proxy

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A rawPipe is the two ends of a pipe, see pipe(7). Neither blocks.
type rawPipe struct{ r, w int32 }

// openPipe opens a pipe.
func openPipe() (rawPipe, syscall.Errno) {
	var p rawPipe // as pipe2(2) has it: the end to read from first
	err := faultDenied(callPipe)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&p)), unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	return p, err
}

// close closes both ends.
func (p rawPipe) close() {
	closeFD(p.r)
	closeFD(p.w)
}

// resize asks the kernel to have the pipe hold so many bytes.
func (p rawPipe) resize(size int) syscall.Errno {
	err := faultDenied(callPipeSize)
	if err == 0 {
		_, _, err = unix.RawSyscall(unix.SYS_FCNTL, uintptr(p.w), unix.F_SETPIPE_SZ, uintptr(size))
	}
	return err
}

// capacity returns how many bytes the pipe holds. Where the system does not tell, that is 64 KiB, which pipe(7) says is
// usual.
func (p rawPipe) capacity() int {
	size, _ := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	if size <= 0 {
		return 64 << 10
	}
	return size
}

// read reads what a destination has left in the pipe. That it is empty is an error, EIO.
func (p rawPipe) read(b []byte) (int, syscall.Errno) {
	for {
		base := unsafe.Pointer(unsafe.SliceData(b))
		n, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(p.r), uintptr(base), uintptr(len(b)))
		switch {
		case err == unix.EINTR:
		case err == 0 && n == 0:
			return 0, unix.EIO
		default:
			return int(n), err
		}
	}
}

// unload returns the n bytes that a destination has left in the pipe.
func (p rawPipe) unload(n int) ([]byte, error) {
	b := make([]byte, n)
	for at := 0; at < n; {
		m, err := p.read(b[at:])
		if err != 0 {
			return nil, os.NewSyscallError("read", err)
		}
		at += m
	}
	return b, nil
}
