package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// An Address is where the API listens: an absolute path of a Unix socket, or a TCP address.
type Address struct {
	Socket string
	TCP    netip.AddrPort // used if Socket is empty
}

// String returns the address in the form that the configuration and the commands accept.
func (a Address) String() string {
	if a.Socket != "" {
		return "unix://" + a.Socket
	}
	return a.TCP.String()
}

// DefaultSockets returns the usual paths of the admin socket. Lictor uses the first path in a folder that exists or can
// be made.
func DefaultSockets(getenv func(string) string) []string {
	var paths []string
	if dir, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":"); dir != "" { // set by systemd
		paths = append(paths, filepath.Join(dir, "admin.sock"))
	}
	paths = append(paths, "/run/lictor/admin.sock")
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "lictor", "admin.sock"))
	}
	return paths
}

// ListenDefault opens the first default socket that can be opened. If none can be opened, the error gives the reason
// for each path. A socket at which another process listens is an error.
func ListenDefault(getenv func(string) string) (net.Listener, error) {
	return listenFirst(DefaultSockets(getenv))
}

// listenFirst opens the first of the sockets at paths that can be opened.
func listenFirst(paths []string) (net.Listener, error) {
	var errs []error
	for _, path := range paths {
		if dir := filepath.Dir(path); filepath.Base(dir) == "lictor" {
			_ = os.Mkdir(dir, 0o700) // if this fails, Listen returns an error
		}
		l, err := Listen(Address{Socket: path})
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Listen opens a listener. A Unix socket gets mode 0600. Listen replaces an abandoned socket, such as the socket of a
// killed process. Listen removes nothing else: if another kind of file is at the path, or a process listens there,
// Listen returns an error.
func Listen(a Address) (net.Listener, error) {
	if a.Socket == "" {
		return net.Listen("tcp", a.TCP.String())
	}
	if err := removeAbandoned(a.Socket); err != nil {
		return nil, err
	}
	return listenPrivately(a.Socket)
}

// removeAbandoned removes the socket at path if no process listens there. removeAbandoned returns nil if the path is
// free afterwards.
func removeAbandoned(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	// Connecting to a regular file also fails with ECONNREFUSED, so check the type first.
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: is %s, not a socket: move it away, or choose another path",
			path, regular.Kind(info.Mode()))
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return inUse(path)
	case errors.Is(err, syscall.EAGAIN): // the listener's queue is full
		return inUse(path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist): // another process removed the socket meanwhile
		return nil
	}
	return fmt.Errorf("listen on %s: cannot find out whether the socket there is in use: %w", path, err)
}

// inUse returns the error for a path at which a process listens.
func inUse(path string) error {
	return &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"},
		Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
}

// ListenBeside opens a listener while old, which will be closed soon, is still open. On Linux the two addresses may
// overlap, such as 127.0.0.1 and 0.0.0.0 with the same port. During the call, other sockets of this user could bind to
// that port too.
func ListenBeside(a Address, old net.Listener) (net.Listener, error) {
	l, err := Listen(a)
	before, is := old.(*net.TCPListener)
	if !is || !errors.Is(err, syscall.EADDRINUSE) || a.Socket != "" ||
		before.Addr().(*net.TCPAddr).Port != int(a.TCP.Port()) {
		return l, err
	}
	raw, controlErr := before.SyscallConn()
	if controlErr != nil || shared(raw, true) != nil {
		return nil, err
	}
	defer func() { _ = shared(raw, false) }()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return shared(c, true) }}
	beside, err := config.Listen(context.Background(), "tcp", a.TCP.String())
	if err != nil {
		return nil, err
	}
	if raw, err := beside.(*net.TCPListener).SyscallConn(); err == nil {
		_ = shared(raw, false)
	}
	return beside, nil
}

// listenPrivately makes the socket in a folder that only this user may enter, sets the socket's mode, and then
// publishes the socket at path.
func listenPrivately(path string) (net.Listener, error) {
	private, err := os.MkdirTemp(filepath.Dir(path), ".l")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	hidden := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(hidden, 0o600); err == nil {
		err = publish(hidden, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &socket{UnixListener: l, path: path, made: identity(path)}, nil
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

// A socket is a Unix listener that removes its file when it is closed, unless another socket has replaced the file.
type socket struct {
	*net.UnixListener
	path string
	made os.FileInfo
	kept atomic.Bool // another process serves the socket now
}

// Inherit returns the listener at a from f, a descriptor of a socket that another process opened. The caller closes f.
func Inherit(a Address, f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, unix := l.(*net.UnixListener)
	switch {
	case unix != (a.Socket != ""):
		return nil, errors.Join(fmt.Errorf("the inherited socket does not belong to %s", a), l.Close())
	case unix:
		return &socket{UnixListener: u, path: a.Socket, made: identity(a.Socket)}, nil
	}
	return l, nil
}

// Addr returns the path that clients dial.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socket) Close() error {
	if s.kept.Load() {
		return s.UnixListener.Close()
	}
	// SameFile compares inode numbers, and a new file can get that of a deleted one: compare the time, too.
	if now := identity(s.path); now != nil && s.made != nil && os.SameFile(s.made, now) &&
		s.made.ModTime().Equal(now.ModTime()) {
		_ = os.Remove(s.path)
	}
	return s.UnixListener.Close()
}

// identity returns the FileInfo of the socket at path, or nil if there is no socket.
func identity(path string) os.FileInfo {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	return info
}
