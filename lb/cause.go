package lb

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
)

// ErrHandshake is wrapped by the error of a dial that reached the endpoint but failed in the TLS handshake, for
// whatever reason.
var ErrHandshake = errors.New("TLS handshake failed")

// ErrNotReady is wrapped by the error of a dial that this host was not ready for, for example because it has no
// certificate yet. Such an error says nothing about the endpoint.
var ErrNotReady = errors.New("not ready to dial")

// CauseOf returns the cause of err, which is the error of a dial or a datagram to an endpoint. If local is true, the
// error says nothing about the endpoint: this host lacks a resource or filters the packet, the endpoint does not accept
// this host, or the caller gave up. In that case the cause is zero, and Member.Failed must not be called.
func CauseOf(err error) (cause Cause, local bool) {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrLookups) || errors.Is(err, ErrNotReady) ||
		errors.Is(err, ErrDenied) {
		return 0, true
	}
	if errors.Is(err, errUnfit) {
		return Unfit, false
	}
	if errors.Is(err, ErrHandshake) {
		return Handshake, false
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return Unreachable, false // a timeout, or an unknown host name
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ENOENT: // ENOENT: no Unix socket has the path
		return Refused, false
	case syscall.ECONNRESET, syscall.EPIPE:
		return Reset, false
	case syscall.EAGAIN, syscall.EACCES, syscall.EPERM:
		// Of a dial to a Unix socket, these errors are about the endpoint: its queue of new connections is full, or it
		// does not let this user in. Of other dials, they mean that no local port is free, or that a packet filter of
		// this host denies the dial.
		if isUnixDial(err) {
			return Unreachable, false
		}
		return 0, true
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, // no descriptors or memory
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE: // no local ports
		return 0, true
	}
	return Unreachable, false
}

// maxWhy limits the text of whyOf, in bytes. The other end chooses a part of it, such as the names in its certificate.
const maxWhy = 512

// whyOf returns what err says about a failed TLS handshake, in at most maxWhy bytes. whyOf returns "" without an err,
// and for other causes, which say enough.
func whyOf(c Cause, err error) string {
	if c != Handshake || err == nil {
		return ""
	}
	text := err.Error()
	if _, why, found := strings.Cut(text, ErrHandshake.Error()+": "); found { // without the address, which is known
		text = why
	}
	const more = "..."
	if len(text) > maxWhy {
		text = text[:maxWhy-len(more)] + more
	}
	return strings.ToValidUTF8(text, "") // the limit may have cut a character
}

// isUnixDial reports whether err is the error of a dial to a Unix socket.
func isUnixDial(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Net == "unix"
}
