package proxy

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"
)

// open shakes hands with a client of s as a says, unless the client may speak plain text and does. It returns the
// connection to be used, and the client's bytes that were read from it. first are those that were read before. If the
// client has gone, the error is a clientError.
func (t *tcpSocket) open(client streamConn, s *service, a *AcceptTLS, src netip.AddrPort, first []byte,
	began time.Time) (_ streamConn, rest []byte, err error) {
	place := t.engine.roster.add(&tcpClient{socket: t, dialer: &dialer{service: s, src: src}, began: began,
		greeting: true})
	defer t.engine.roster.remove(place)
	if a.Plain {
		var is guess
		if is, first, err = t.guess(client, first); err != nil {
			return nil, nil, err
		}
		a = s.spec.Load().AcceptTLS // the one in force now: it may be stricter than when the client came
		if a == nil || a.Plain && is == speaksPlain {
			return client, first, nil
		}
	}
	c, err := t.secure(client, a, first)
	if err != nil {
		return nil, nil, err
	}
	return c, nil, nil
}

// guess finds out whether a client speaks TLS. b are the client's first bytes so far; guess returns all that were read.
func (t *tcpSocket) guess(client streamConn, b []byte) (is guess, _ []byte, err error) {
	_ = client.SetReadDeadline(time.Now().Add(peekTimeout))
	stop := context.AfterFunc(t.cutting, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			_ = client.SetReadDeadline(time.Time{})
		}
	}()
	b = slices.Clone(b) // the TLVs of a PROXY header may be in front of b
	whole := false
	for {
		if is = guessOf(b, whole); is != needsMore {
			return is, b, nil
		}
		b = slices.Grow(b, 512)
		n, err := client.Read(b[len(b):cap(b)])
		switch b = b[:len(b)+n]; {
		case t.cutting.Err() != nil:
			return is, b, t.cutting.Err()
		case err == nil:
		case err == io.EOF, errors.Is(err, os.ErrDeadlineExceeded):
			whole = true
		default:
			return is, b, &clientError{rootOf(err)}
		}
	}
}
