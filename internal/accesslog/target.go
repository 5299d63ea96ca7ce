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

// A target is what an access log writes to. The zero target is none.
type target struct {
	file    *os.File
	regular bool                // file is a regular file
	own     *asyncwriter.Writer // what this process prints to, which is not closed; nil: it is file
}

func (t target) isOpen() bool { return t.file != nil || t.own != nil }

// errNobodyReads is the error of opening a FIFO that has no reader yet.
var errNobodyReads = errors.New("nobody reads this FIFO")

// openTarget opens the target of an access log: a regular file, which is made if need be, a FIFO or a character device.
// It does not wait. /dev/stdout and /dev/stderr, and links to them, are where this process prints: a socket, such as
// journald's, cannot be opened again.
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

// takesLines returns an error unless a file of this mode can be an access log.
func takesLines(path string, mode fs.FileMode) error {
	if mode.IsRegular() || mode&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0 {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("is %s: name a file or a FIFO", regular.Kind(mode))}
}

// Check returns an error if this process could not open an access log. It opens nothing and makes no file, for those
// that it made might belong to another user than the one who runs Lictor. It does not wait.
func Check(o Options) error {
	printed := new(asyncwriter.Writer) // nothing is written to it
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

// write writes b, or as much of it as there is room for in a FIFO.
func (t target) write(b []byte) (int, error) {
	// It fails for what cannot be waited for, such as a regular file.
	_ = t.file.SetWriteDeadline(time.Now().Add(fifoPatience))
	return t.file.Write(b)
}

// isAt reports whether t is still what opening path would lead to.
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
		_ = t.file.Close() // what could not be written has been told
	}
}

// maxLinks bounds how many symbolic links are followed.
const maxLinks = 40

// standard returns the output of this process that path, or the link there, names; nil: it names something else.
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
