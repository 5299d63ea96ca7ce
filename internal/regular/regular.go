// Package regular reads only regular files, such as configurations, tokens, certificates and saved state.
//
//	text, err := regular.ReadFile("/etc/lictor/token", 64<<10)
//
// os.ReadFile waits for a writer if the path is a FIFO, and reads a device such as /dev/zero until memory is full.
// os.ReadFile also assumes that a file fits into memory. ReadFile does none of that. ReadFile can still block on a hung
// disk or file server, so do not call it with a lock that other goroutines need.
package regular

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrTooLong is the error of ReadFile for a file that exceeds the limit.
var ErrTooLong = errors.New("the file is too long")

// ReadFile returns the content of the regular file at path. ReadFile follows symbolic links, never waits for another
// process, and never reads more than limit+1 bytes. The errors of ReadFile are of type *fs.PathError. The error for a
// file longer than limit wraps ErrTooLong. The error for another kind of file names the kind.
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
	// The size of a generated file, such as one in /proc, is zero. Other files may grow meanwhile.
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

// Kind describes a file's mode in words, such as "a FIFO".
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
