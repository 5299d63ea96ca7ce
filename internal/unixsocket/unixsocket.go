// Package unixsocket opens listeners at Unix sockets without taking anything from anybody:
//
//	l, file, err := unixsocket.Listen(path, unixsocket.Access{Mode: 0o600})
//	...
//	file.Remove() // at the end, unless another process serves the socket by now
//	l.Close()
//
// Listen replaces an abandoned socket, such as the socket of a killed process. Neither Listen nor Remove touches any
// other file.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// An Access says who may connect to a socket. Besides the permission for the socket, a client needs the permission to
// enter its folders.
type Access struct {
	Mode fs.FileMode // permission bits

	// Owner and Group are names or numbers. If one is empty, it is that of this process. Another Owner needs root.
	Owner, Group string
}

// Listen opens a listener at path. Nobody can connect before the socket has its mode and owner. If another kind of file
// is at path, or a process listens there, Listen returns an error. Closing the listener leaves the file.
func Listen(path string, a Access) (*net.UnixListener, *File, error) {
	uid, gid, err := a.ids()
	if err == nil {
		err = removeAbandoned(path)
	}
	if err != nil {
		return nil, nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".l") // only this user may enter it
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	hidden := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = restrict(hidden, a.Mode, uid, gid); err == nil {
		err = publish(hidden, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, nil, err
	}
	return l, Opened(path), nil
}

// Check returns nil if Listen would find nothing in the way at path. Check changes nothing.
func Check(path string) error {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	_, err := abandoned(path)
	return err
}

// removeAbandoned removes the socket at path if no process listens there. removeAbandoned returns nil if the path is
// free afterwards.
func removeAbandoned(path string) error {
	is, err := abandoned(path)
	if is {
		err = os.Remove(path)
	}
	return err
}

// abandoned reports whether there is a socket at path at which no process listens. abandoned returns an error if
// something else is there.
func abandoned(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Connecting to a regular file also fails with ECONNREFUSED, so check the type first.
	if info.Mode().Type() != fs.ModeSocket {
		return false, fmt.Errorf("listen on %s: is %s, not a socket: move it away, or choose another path",
			path, regular.Kind(info.Mode()))
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return false, inUse(path)
	case errors.Is(err, syscall.EAGAIN): // the listener's queue is full
		return false, inUse(path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return true, nil
	case errors.Is(err, fs.ErrNotExist): // another process removed the socket meanwhile
		return false, nil
	}
	return false, fmt.Errorf("listen on %s: cannot find out whether the socket there is in use: %w", path, err)
}

// inUse returns the error for a path at which a process listens.
func inUse(path string) error {
	return &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"},
		Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
}

// publish gives the socket at hidden the name path. publish replaces nothing: if another process took the name first,
// publish returns an "address in use" error.
func publish(hidden, path string) error {
	err := os.Link(hidden, path)
	if errors.Is(err, fs.ErrExist) {
		return inUse(path)
	}
	if err != nil { // the file system has no hard links
		return os.Rename(hidden, path)
	}
	return nil
}

// A File is the file of a socket, as it was when this process opened or inherited the socket.
type File struct {
	path string
	made os.FileInfo // nil: there was no socket
}

// Opened returns the file of the socket at path, which this process has just opened or inherited.
func Opened(path string) *File { return &File{path, identity(path)} }

// Path returns the path of the socket.
func (f *File) Path() string { return f.path }

// Remove removes the file, unless another file has replaced it. Remove of a nil File does nothing.
func (f *File) Remove() {
	if f != nil && f.isThere() {
		_ = os.Remove(f.path)
	}
}

// isThere reports whether the file at the path is still f. SameFile compares inode numbers, and a new file can get that
// of a deleted one: compare the time, too.
func (f *File) isThere() bool {
	now := identity(f.path)
	return now != nil && f.made != nil && os.SameFile(f.made, now) && f.made.ModTime().Equal(now.ModTime())
}

// Restrict sets who may connect from now on. Restrict does nothing if f is nil, or if another file has replaced f.
func (f *File) Restrict(a Access) error {
	if f == nil || !f.isThere() {
		return nil
	}
	uid, gid, err := a.ids()
	if err != nil {
		return err
	}
	return restrict(f.path, a.Mode, uid, gid)
}

// restrict sets the mode and the owner of the socket at path. The mode is set first without any rights, so that no
// right of the former owner remains.
func restrict(path string, mode fs.FileMode, uid, gid int) error {
	if uid >= 0 || gid >= 0 {
		if err := errors.Join(os.Chmod(path, 0), os.Lchown(path, uid, gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// identity returns the FileInfo of the socket at path, or nil if there is no socket.
func identity(path string) os.FileInfo {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	return info
}
