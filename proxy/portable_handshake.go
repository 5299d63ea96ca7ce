package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// This file has what TLS needs of the portable engine; secureConn speaks it.

// secure shakes hands with a client as a says. first are bytes of the client that were read before. If the client has
// gone, the error is a clientError.
func (t *tcpSocket) secure(client streamConn, a *AcceptTLS, first []byte) (*secureConn, error) {
	w := &wire{streamConn: client, bare: client, first: first, heard: len(first) > 0}
	conn := tls.Server(w, a.Config())
	c, err := t.engine.handshakes.shake(t.cutting, w, conn, time.Now().Add(a.timeout()))
	forbidden := forbiddenIn(conn, err)
	switch {
	case err == nil:
		return c, nil
	case t.cutting.Err() != nil:
		return nil, t.cutting.Err()
	case w.ended && !w.heard:
		return nil, &clientError{} // such as the check of a balancer that only connects
	case w.ended:
		return nil, clientHandshakeError(errors.New("the client ended the connection"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, clientHandshakeError(fmt.Errorf("it was not over within %v", a.timeout()))
	case errors.As(err, new(syscall.Errno)):
		return nil, &clientError{rootOf(err)}
	}
	t.seeOff(client)
	if forbidden != nil {
		return nil, forbidden
	}
	return nil, clientHandshakeError(err)
}

// seeOff closes the connection of a client after TLS has told the client that the handshake has failed. A reset could
// overtake that.
func (t *tcpSocket) seeOff(client streamConn) {
	_ = client.SetReadDeadline(time.Now().Add(deliverTimeout))
	stop := context.AfterFunc(t.cutting, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if client.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, client)
	}
	_ = client.Close()
}

// encrypt is write for a destination that speaks TLS.
func (m *mover) encrypt(c *secureConn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := seal(c.Conn, b, m.moved.Load()); err != nil {
		return &writeError{err}
	}
	sent, err := m.flush(c, destination)
	if err != nil {
		if sent == 0 {
			m.keepUntaken(b[m.opening:])
		}
		return err
	}
	m.countMoved(m.withoutOpening(len(b)))
	return nil
}

// answer sends what TLS has to say to the source.
func (m *mover) answer() error {
	_, err := m.flush(m.src.(*secureConn), sourceRoom)
	return err
}

// takeLeave tells a destination that speaks TLS that the source has ended. takeLeave returns io.EOF, or errStuck.
func (m *mover) takeLeave() error {
	if c, is := m.dst.(*secureConn); is {
		c.sayEnd()
		if _, err := m.flush(c, destination); err == errStuck {
			return err
		}
	}
	return io.EOF // if the destination has failed, its CloseWrite fails too
}

// flush sends what TLS has to say to c, or until a limit of the pair ends it. flush returns how many bytes were sent.
// Their plain text counts as moved only if all were.
func (m *mover) flush(c *secureConn, w waitsFor) (sent int, err error) {
	for c.wire.queued() > 0 {
		n, err := c.wire.flush()
		if sent += n; n > 0 {
			m.pair.touch()
		}
		if err == nil {
			continue
		}
		end, goOn := m.pair.expired(m, w, err)
		switch {
		case end:
			return sent, errStuck
		case !goOn && w == destination:
			return sent, &writeError{err}
		case !goOn:
			return sent, err
		}
	}
	return sent, nil
}
