package daemon

import (
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/hashicorp/go-multierror"
)

// Explain returns the text of each error in err, with a hint how to solve it.
func Explain(err error) (lines []string) {
	var several *multierror.Error
	if !errors.As(err, &several) {
		return []string{err.Error() + hint(err)}
	}
	for _, e := range several.Errors {
		lines = append(lines, Explain(e)...)
	}
	return lines
}

// withHints returns an error with the lines of Explain as its text.
func withHints(err error) error { return errors.New(strings.Join(Explain(err), "\n")) }

// hint returns a text that says how to solve err. The text is empty if there is no hint, or if err itself says how to
// solve it.
func hint(err error) string {
	var op *net.OpError
	isSocket := errors.As(err, &op) && op.Net == "unix"
	isFile := errors.As(err, new(*fs.PathError))
	switch {
	case isSocket && errors.Is(err, syscall.EADDRINUSE):
		return " (another process serves that socket: stop it, or choose another path)"
	case errors.Is(err, syscall.EADDRINUSE):
		return " (something else listens there: stop it, or choose another port; \"ss -ltnup\" shows the process)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return " (this host has no such address)"
	case errors.Is(err, syscall.EACCES) && !isSocket && !isFile:
		return " (ports below 1024 need CAP_NET_BIND_SERVICE: run as root, by setcap cap_net_bind_service=+ep," +
			" or with AmbientCapabilities= in systemd)"
	}
	return ""
}
