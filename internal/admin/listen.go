package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/lictor-proxy/lictor/internal/unixsocket"
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
	l, file, err := unixsocket.Listen(a.Socket, unixsocket.Access{Mode: 0o600})
	if err != nil {
		return nil, err
	}
	return &socket{UnixListener: l, file: file}, nil
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

// A socket is a Unix listener that removes its file when it is closed, unless another socket has replaced the file.
type socket struct {
	*net.UnixListener
	file *unixsocket.File
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
		return &socket{UnixListener: u, file: unixsocket.Opened(a.Socket)}, nil
	}
	return l, nil
}

// Addr returns the path that clients dial.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.file.Path(), Net: "unix"} }

func (s *socket) Close() error {
	if !s.kept.Load() {
		s.file.Remove()
	}
	return s.UnixListener.Close()
}
