package accesslog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/asyncwriter"
	"github.com/lictor-proxy/lictor/internal/regular"
)

// A target is what an access log writes to. The zero target is closed.
type target struct {
	file    *os.File
	regular bool                // file is a regular file
	own     *asyncwriter.Writer // an output of this process, which is never closed; nil if file is used
}

func (t target) isOpen() bool { return t.file != nil || t.own != nil }

// errNobodyReads is the error for opening a FIFO that has no reader yet.
var errNobodyReads = errors.New("this FIFO has no reader")

// openTarget opens the target of an access log: a regular file, which is created if needed, a FIFO or a character
// device. openTarget does not block. For /dev/stdout and /dev/stderr, and links to them, it returns this process's
// output, because a socket such as journald's cannot be opened again.
func openTarget(o Options, own Outputs) (target, error) {
	if w := own.standard(o.Path); w != nil {
		return target{own: w}, nil
	}
	file, err := os.OpenFile(o.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|regular.AtOnce, 0o640)
	var info fs.FileInfo
	if err == nil {
		info, err = file.Stat()
	} else if errors.Is(err, syscall.ENXIO) && isFIFO(o.Path) {
		err = &fs.PathError{Op: "open", Path: o.Path, Err: errNobodyReads}
	}
	if err == nil {
		err = takesLines(o.Path, info.Mode())
	}
	if err != nil {
		if file != nil {
			_ = file.Close() // nothing was written
		}
		return target{}, fmt.Errorf("access_log: %w", err)
	}
	return target{file: file, regular: info.Mode().IsRegular()}, nil
}

// takesLines returns an error if a file of this mode cannot be an access log.
func takesLines(path string, mode fs.FileMode) error {
	if mode.IsRegular() || mode&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0 {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("is %s: name a file or a FIFO", regular.Kind(mode))}
}

// Check returns an error if this process could not open an access log. Check opens and creates no file, because a file
// that it created could belong to another user than the one that runs Lictor. Check does not block.
func Check(o Options) error {
	printed := new(asyncwriter.Writer) // nothing is written to this Writer
	if (Outputs{Out: printed, Err: printed}).standard(o.Path) != nil {
		return nil
	}
	info, err := os.Stat(o.Path)
	switch {
	case err == nil:
		if err = takesLines(o.Path, info.Mode()); err == nil {
			err = mayWrite(o.Path, info.Mode())
		}
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(o.Path)
		if info, err = os.Stat(dir); err == nil {
			err = mayWrite(dir, info.Mode())
		}
	}
	if err != nil {
		return fmt.Errorf("access_log: %w", err)
	}
	return nil
}

func isFIFO(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}

// write writes b, or as much of b as a FIFO takes within fifoPatience.
func (t target) write(b []byte) (int, error) {
	// Setting a deadline fails for files that never block, such as regular files.
	_ = t.file.SetWriteDeadline(time.Now().Add(fifoPatience))
	return t.file.Write(b)
}

// isAt reports whether path still leads to t.
func (t target) isAt(path string) bool {
	if t.file == nil {
		return t.own != nil
	}
	mine, err1 := t.file.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

func (t target) close() {
	if t.file != nil {
		_ = t.file.Close() // write errors have been logged
	}
}

// maxLinks limits the number of symbolic links that are followed.
const maxLinks = 40

// standard returns this process's output that path names, directly or through links. standard returns nil if path names
// something else.
func (o Outputs) standard(path string) *asyncwriter.Writer {
	for range maxLinks {
		switch filepath.ToSlash(filepath.Clean(path)) {
		case "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", fmt.Sprintf("/proc/%d/fd/1", os.Getpid()):
			return o.Out
		case "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2", fmt.Sprintf("/proc/%d/fd/2", os.Getpid()):
			return o.Err
		}
		target, err := os.Readlink(path)
		if err != nil {
			return nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return nil
}
