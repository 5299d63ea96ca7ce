// Package regular reads regular files and nothing else: configuration, tokens, certificates, saved state.
//
//	text, err := regular.ReadFile("/etc/lictor/token", 64<<10)
//
// os.ReadFile waits for a writer if the path is a FIFO, reads a device such as /dev/zero until memory ends, and trusts
// that a file fits into memory. ReadFile does none of that. It can still wait for a disk or a file server that hangs:
// do not call it while holding a lock that somebody else needs.
package regular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrTooLong is the error of ReadFile if the file has more bytes than allowed.
var ErrTooLong = errors.New("file too long")

// ReadFile returns the contents of the regular file at path. Symbolic links are followed. It never waits for another
// process, and never reads more than limit+1 bytes. Errors are of type *fs.PathError. A file longer than limit has an
// error that wraps ErrTooLong; a path that is no regular file has one that says what it is.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|AtOnce, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		what := fmt.Errorf("is %s, not a regular file", Kind(info.Mode()))
		return nil, &fs.PathError{Op: "read", Path: path, Err: what}
	}
	tooLong := &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)}
	if info.Size() > limit {
		return nil, tooLong
	}
	// The size of what the kernel makes up, such as /proc, is zero. Other files may grow.
	text := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	_, err = text.ReadFrom(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(text.Len()) > limit:
		return nil, tooLong
	}
	return text.Bytes(), nil
}

// Kind says in words what a file of the given mode is, such as "a FIFO".
func Kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a regular file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}
