package discovery

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// permits returns nil if e, which listens on a Unix socket, may be an endpoint. Otherwise the error says why not. The
// socket is a file of this host, so an instance of another node can never be reached by its path.
func (r rules) permits(e *entry) error {
	socket := e.Service.SocketPath
	matches := func(pattern string) bool {
		ok, err := path.Match(pattern, socket)
		return ok && err == nil
	}
	switch {
	case len(r.socketPaths) == 0:
		return errors.New("listens on a Unix socket, and the consul block has no socket_paths that allow it")
	case !slices.ContainsFunc(r.socketPaths, matches):
		return fmt.Errorf("listens on the Unix socket %s, which socket_paths does not allow", socket)
	case r.here.err != nil:
		return fmt.Errorf("listens on a Unix socket, and it is not known whether its node is this one: %w", r.here.err)
	case !r.here.is(e.Node):
		return errors.New("listens on a Unix socket of another node")
	}
	return nil
}

// hasSocket reports whether e listens on a Unix socket.
func hasSocket(e *entry) bool { return e != nil && e.Service != nil && e.Service.SocketPath != "" }
